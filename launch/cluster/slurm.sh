#!/bin/bash
# sbatch launch/cluster/slurm.sh CONFIG [key=value ...]
# One Ray node per Slurm node, the driver on the first. Requeued after preemption, it goes on where it was: Slurm sends
# SIGTERM a minute before the end, the driver leaves with 75, and the same command resumes.
#SBATCH --job-name=ensemble
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
set -euo pipefail

config=${1:?usage: sbatch launch/cluster/slurm.sh CONFIG [key=value ...]}
shift
cd "${SLURM_SUBMIT_DIR:?}"
bin=$PWD/.venv/bin
runs=${ENSEMBLE_RUNS:-$PWD/runs}
port=$((20000 + SLURM_JOB_ID % 10000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64)
export RAY_AUTH_TOKEN

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  "$bin/ray" start --head --node-ip-address="$address" --port="$port" --include-dashboard=false --block &
sleep 15
workers=$((SLURM_JOB_NUM_NODES - 1))
if ((workers > 0)); then
  srun --nodes="$workers" --ntasks="$workers" --exclude="$head" "$bin/ray" start --address="$address:$port" --block &
  sleep 10
fi

"$bin/python" -m ensemble.launch.ray_job "$config" "output_dir=$runs" "compute.ray_address=$address:$port" "$@" &
driver=$!
trap 'kill -TERM $driver' TERM
code=0
wait $driver || code=$?
wait $driver || code=$? # the first wait ends when the trap runs, the second when the driver has
if ((code == 75)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
