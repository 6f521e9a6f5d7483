# shellcheck shell=bash disable=SC2034
# Sourced by the Slurm scripts beside it: how a job hears that it must stop, and what becomes of it then.
#
# Slurm tells a job in three ways, and the program (`driver`) must hear of each before anything else ends:
#   time limit    SIGTERM to this shell alone, a minute before (#SBATCH --signal=B:TERM@60): the trap passes it on
#   pre-emption   where the partition has a GraceTime, SIGTERM to the job's steps and not to this shell: `listen` is such a step
#   scancel, pre-emption without GraceTime, a node that failed: SIGTERM to every process at once, SIGKILL after KillWait (30 s)
# The program writes its checkpoints within 12 s and leaves with 75. As long as Slurm itself has not ended the job, it is then
# put back into the queue and goes on where it was.

bin=${ENSEMBLE_BIN:-$PWD/.venv/bin} # where python, ray and torchrun are, on every node
runs=${ENSEMBLE_RUNS:-$PWD/runs}    # a folder that all nodes see
requeues=${ENSEMBLE_REQUEUES:-100}  # of one job; a time limit that is too short for one checkpoint would requeue it for ever
asked=""                            # why the job has been asked to stop
driver=""                           # the program's process
listener=""

say() { echo "slurm: $*" >&2; }

ask_to_stop() { # REASON
  if [ -z "$asked" ]; then say "$1: stopping at the next checkpoint"; fi
  asked=$1
  if [ -n "$driver" ]; then kill -TERM "$driver" 2>/dev/null || true; fi
}
trap 'ask_to_stop "SIGTERM"' TERM

alive() { kill -0 "$1" 2>/dev/null; } # PROCESS

pause() { # for a second, or until a signal comes
  sleep 1 &
  wait $! || true
}

listen() {
  # shellcheck disable=SC2016 # for the step's shell
  srun --quiet --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --input=none --output=/dev/null --error=/dev/null \
    bash -c 'trap "exit 99" TERM; while :; do sleep 1; done' 2>/dev/null &
  listener=$!
}

hear() { # has the listening step been signalled?
  if [ -z "$listener" ] || alive "$listener"; then return; fi
  local heard=0
  wait "$listener" || heard=$?
  listener=""
  if ((heard == 99)); then
    ask_to_stop "Slurm signals the job's steps (pre-emption)"
  elif [ -z "$asked" ]; then
    say "the step that listens for pre-emption has ended with $heard; only the time limit will be heard"
  fi
}

requeue_or_leave() { # CODE: ends the job with the program's code, or puts it back into the queue
  local code=$1 state
  # torchrun leaves with 1 whatever its processes said
  if ((code != 75)) && { [ -z "$asked" ] || ((code != 1)); }; then exit "$code"; fi
  state=$(scontrol show job "$SLURM_JOB_ID" --oneliner | grep -o 'JobState=[A-Z]*' || true)
  if [ "$state" != JobState=RUNNING ]; then exit "$code"; fi # Slurm has ended it: cancelled, or back in the queue already
  if ((${SLURM_RESTART_COUNT:-0} >= requeues)); then
    say "requeued $requeues times already (ENSEMBLE_REQUEUES); submit the same command to go on"
  elif scontrol requeue "$SLURM_JOB_ID"; then
    say "back in the queue; goes on where it was"
  else
    say "could not be requeued; submit the same command to go on"
  fi
  exit "$code"
}
