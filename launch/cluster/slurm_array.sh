#!/bin/bash
# Configurations x seeds as a job array, each run alone on a node, without Ray: docs/slurm.md.
#
#   sbatch --array=0-4 launch/cluster/slurm_array.sh CONFIG [key=value ...]                # five seeds
#   sbatch --array=0-9 launch/cluster/slurm_array.sh CONFIG CONFIG [key=value ...]         # two configurations, five seeds each
#   sbatch --array=0-4 --gpus-per-node=4 launch/cluster/slurm_array.sh CONFIG              # four processes, each with a GPU
#
# Task t trains configuration t modulo their number with seed=t / their number (whole), as NAME-seedN, where NAME is the file's or
# that of name=NAME; so the run folders lie side by side for `ensemble compare` and `ensemble report`. With several GPUs, or ENSEMBLE_PROCESSES above 1,
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
configs=() words=() base=""
for word in "$@"; do
  case $word in
    seed=*) echo "seed comes from the task's number, 0 to 4 by --array=0-4; remove $word. $usage" >&2; exit 2 ;;
    name=*) base=${word#name=} ;;
    *=*) words+=("$word") ;;
    *) configs+=("$word") ;;
  esac
done
if ((${#configs[@]} == 0)) || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "$usage" >&2
  exit 2
fi
if [ -n "$base" ] && ((${#configs[@]} > 1)); then
  echo "name=$base would be that of ${#configs[@]} configurations; remove it: each run is named after its file" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:?start this by sbatch, from the folder of the checkout}"
source launch/cluster/slurm_job.sh

config=${configs[SLURM_ARRAY_TASK_ID % ${#configs[@]}]}
seed=$((SLURM_ARRAY_TASK_ID / ${#configs[@]}))
if [ -z "$base" ]; then base=$(basename "$config" .yaml); fi
name=$base-seed$seed
say "task $SLURM_ARRAY_TASK_ID: $config with seed $seed, as $name"
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
