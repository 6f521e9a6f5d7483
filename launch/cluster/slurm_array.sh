#!/bin/bash
# Configurations x seeds as a job array, each run alone on a node, without Ray: docs/slurm.md.
#
#   sbatch --array=0-4 launch/cluster/slurm_array.sh CONFIG [key=value ...]                # five seeds
#   sbatch --array=0-9 launch/cluster/slurm_array.sh CONFIG CONFIG [key=value ...]         # two configurations, five seeds each
#   sbatch --array=0-4 --gpus-per-node=4 launch/cluster/slurm_array.sh CONFIG              # four processes, each with a GPU
#
# Task t trains configuration t modulo their number with seed=t / their number (whole), under the file's name and -seedN, so the
# run folders lie side by side for `ensemble compare` and `ensemble report`. With several GPUs, or ENSEMBLE_PROCESSES above 1,
# torchrun starts as many processes, which share the members. Stopped by Slurm, a task goes back into the queue and on where it was.
#SBATCH --job-name=ensemble
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

usage="usage: sbatch --array=0-N launch/cluster/slurm_array.sh CONFIG [CONFIG ...] [key=value ...]"
configs=() words=()
for word in "$@"; do
  if [[ $word == *=* ]]; then words+=("$word"); else configs+=("$word"); fi
done
if ((${#configs[@]} == 0)) || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "$usage" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:?start this by sbatch, from the folder of the checkout}"
source launch/cluster/slurm_job.sh

config=${configs[SLURM_ARRAY_TASK_ID % ${#configs[@]}]}
seed=$((SLURM_ARRAY_TASK_ID / ${#configs[@]}))
name=$(basename "$config")
name=${name%.yaml}-seed$seed
say "task $SLURM_ARRAY_TASK_ID: $config with seed $seed, as $runs/$name"
given=("output_dir=$runs" "name=$name" "seed=$seed" "${words[@]}")
processes=${ENSEMBLE_PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}

listen
if ((processes > 1)); then
  if [ "${SLURM_GPUS_ON_NODE:-0}" = 0 ]; then export ACCELERATE_USE_CPU=true; fi
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # as torchrun has it, with a warning; compute.threads_per_task is what counts
  "$bin/torchrun" --standalone --nproc-per-node="$processes" -m ensemble.launch.accelerate_run "$config" "${given[@]}" &
else
  "$bin/python" -m ensemble train "$config" compute.executor=inline "${given[@]}" &
fi
driver=$!
watch
requeue_or_leave
