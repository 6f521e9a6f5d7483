#!/bin/bash
# One run on the nodes of a Slurm job, as a Ray cluster: docs/slurm.md.
#
#   sbatch --nodes=2 launch/cluster/slurm.sh CONFIG [key=value ...]                      # CPUs
#   sbatch --nodes=2 --gpus-per-node=1 launch/cluster/slurm.sh CONFIG [key=value ...]    # GPUs
#
# Options of sbatch on the command line win over those below. The job's exit code is the program's; stopped by Slurm, it goes
# back into the queue and on where it was. On the first node Ray and the program run in this shell, on the others Ray in a step.
# `ray symmetric-run` (Ray 2.49 and later) would be shorter, but passes no SIGTERM on to the program, ends with 0 where a node
# does not come, waits 30 s and no longer, refuses a node on which another Ray runs, and at the end stops every Ray of the user there.
#SBATCH --job-name=ensemble
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch launch/cluster/slurm.sh CONFIG [key=value ...]}
shift
cd "${SLURM_SUBMIT_DIR:?start this by sbatch, from the folder of the checkout}"
source launch/cluster/slurm_job.sh
find_address
node=("$bin/python" -m ensemble.launch.ray_node)

# In the environment alone: no command line and no file holds it.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64 -w 0)
export RAY_AUTH_TOKEN

head="" others=""
end_cluster() {
  local process
  for process in $head $others; do # srun passes the signal on
    kill -USR1 "$process" 2>/dev/null || true
  done
  for process in $head $others; do
    for _ in {1..20}; do
      if alive "$process"; then pause; fi
    done
  done
}
trap end_cluster EXIT

listen
"${node[@]}" head "$address" &
head=$!
if ((${#names[@]} > 1)); then
  srun --overlap --nodes=$((${#names[@]} - 1)) --ntasks=$((${#names[@]} - 1)) --ntasks-per-node=1 --exclude="${names[0]}" \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=0 --wait=0 --no-kill --input=none \
    "${node[@]}" join "$address" &
  others=$!
fi

lost=""
look() {
  if [ -n "$others" ] && [ -z "$asked" ] && ! alive "$others"; then
    others=""
    say "Ray has ended on all other nodes; the run goes on here alone"
  fi
  if [ -z "$lost" ] && ! alive "$head"; then
    lost=yes
    say "the head of the Ray cluster has ended"
    kill -TERM "$driver" 2>/dev/null || true
    (sleep 30 && kill -KILL "$driver" 2>/dev/null) &
  fi
}

# Both are the driver in turn: whichever is under way hears the signal.
"${node[@]}" wait "$address" "${names[@]}" &
driver=$!
watch
if ((code == 0)) && [ -z "$asked" ]; then
  "$bin/python" -m ensemble.launch.ray_job "$config" "output_dir=$runs" "compute.ray_address=$address" "$@" &
  driver=$!
  watch
elif [ -n "$asked" ]; then
  code=75
fi
if [ -n "$lost" ] && [ -z "$asked" ]; then code=7; fi # whatever Ray made of it
end_cluster
trap - EXIT
requeue_or_leave
