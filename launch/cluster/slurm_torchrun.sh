#!/bin/bash
# One run on the nodes of a Slurm job by torchrun instead of Ray: docs/slurm.md.
#
#   sbatch --nodes=2 launch/cluster/slurm_torchrun.sh CONFIG [key=value ...]                                          # members shared out
#   sbatch --nodes=2 --gpus-per-node=4 launch/cluster/slurm_torchrun.sh CONFIG compute.parallel=data [key=value ...]  # each by all
#
# For compute.parallel=data, and where Ray is not wanted. One launcher a node, as many processes as it has GPUs (without any:
# ENSEMBLE_PROCESSES, else 1). All launchers are in one step, so pre-emption reaches them all: rank 0 writes the checkpoints and
# the job goes back into the queue. scancel ends this step at once: what was trained since the last checkpoint is then lost.
#SBATCH --job-name=ensemble
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch launch/cluster/slurm_torchrun.sh CONFIG [key=value ...]}
shift
cd "${SLURM_SUBMIT_DIR:?start this by sbatch, from the folder of the checkout}"
source launch/cluster/slurm_job.sh
find_address

# The secret with which ranks sign what they send each other: in the environment alone.
ENSEMBLE_LAUNCH_SECRET=$(head -c 32 /dev/urandom | base64 -w 0)
export ENSEMBLE_LAUNCH_SECRET OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [ "${SLURM_GPUS_ON_NODE:-0}" = 0 ]; then export ACCELERATE_USE_CPU=true; fi

# torchrun leaves with 1 whatever its processes said; that it was signalled is what makes it 75.
# shellcheck disable=SC2016 # for the step's shells
launcher='
  asked="" code=0
  trap "asked=yes" TERM
  torchrun=$1
  shift
  "$torchrun" --node-rank="$SLURM_NODEID" "$@" &
  while kill -0 $! 2>/dev/null; do wait $! || true; done
  wait $! || code=$?
  if [ -n "$asked" ] && ((code != 0)); then code=75; fi
  exit $code
'
srun --nodes="${#names[@]}" --ntasks="${#names[@]}" --ntasks-per-node=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \
  --kill-on-bad-exit=1 --input=none bash -c "$launcher" launcher "$bin/torchrun" --nnodes="${#names[@]}" \
  --nproc-per-node="${ENSEMBLE_PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}" --master-addr="${address%:*}" --master-port="${address##*:}" \
  -m ensemble.launch.accelerate_run "$config" "output_dir=$runs" "$@" &
driver=$!
while alive "$driver"; do pause; done
wait "$driver" || code=$?
requeue_or_leave
