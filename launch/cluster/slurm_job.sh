# shellcheck shell=bash disable=SC2034
# Sourced by the Slurm scripts beside it: how a job hears that it must stop, what becomes of it then, and where its first node is.
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
code=0                              # what the program left with

if [ ! -x "$bin/python" ]; then
  echo "slurm: no python in $bin on $(hostname); run make install in the checkout, or name the folder by ENSEMBLE_BIN" >&2
  exit 7
fi

say() { echo "slurm: $*" >&2; }

ask_to_stop() { # REASON
  if [ -z "$asked" ]; then say "$1: stopping at the next checkpoint"; fi
  asked=$1
  if [ -n "$driver" ]; then kill -TERM "$driver" 2>/dev/null || true; fi
}
trap 'ask_to_stop "SIGTERM (the time limit is near, or the job is being ended)"' TERM

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
  if [ -n "$asked" ]; then return; fi
  if ((heard == 99)); then
    ask_to_stop "SIGTERM to the job's steps (pre-emption)"
  else
    say "the step that listens for pre-emption has ended with $heard; only the time limit will be heard"
  fi
}

look() { :; } # at what else may have ended; a script's own

watch() { # until the driver has ended; sets `code`
  while alive "$driver"; do
    pause
    hear
    look
  done
  code=0
  wait "$driver" || code=$?
}

requeue_or_leave() { # ends the job with the program's code, or puts it back into the queue
  local state
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

find_address() { # sets `names`, the job's nodes, and `address`, the first one's with a free port
  mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  if [ -n "${ENSEMBLE_HEAD_ADDRESS:-}" ]; then
    if ((${#names[@]} > 1)) && [[ $ENSEMBLE_HEAD_ADDRESS == 127.* || $ENSEMBLE_HEAD_ADDRESS == localhost ]]; then
      say "ENSEMBLE_HEAD_ADDRESS is $ENSEMBLE_HEAD_ADDRESS, which no other node reaches; expected an address in the network between them"
      exit 7
    fi
    address=$ENSEMBLE_HEAD_ADDRESS:$((20000 + SLURM_JOB_ID % 10000))
    return
  fi
  # The address by which the first node reaches the second one is the one by which the second reaches the first: not what the
  # first's own name means there, which is 127.0.1.1 on a Debian.
  local other=${names[1]:-${names[0]}} place alone=()
  if ((${#names[@]} == 1)); then alone=(alone); fi
  place=$(scontrol show node "$other" --oneliner | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2 || true)
  address=$("$bin/python" -m ensemble.launch.ray_node address "${place:-$other}" "${alone[@]}")
}
