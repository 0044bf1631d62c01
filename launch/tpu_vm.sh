#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice: asks for the slice as a queued
# resource, waits for it, starts kdjax on every worker, starts over with another
# slice when this one is preempted, and gives it back at the end. From a machine
# that stays up and has gcloud:
#
#   TPU=my-run TYPE=v5litepod-16 ZONE=us-west4-a SETUP='...' \
#     bash launch/tpu_vm.sh --config=configs/gkd_xsum.py --workdir=/shared/run
#
# What to change: TYPE, ZONE, and SETUP, a line of shell that makes a blank
# worker ready. With an environment and the repository on a shared disk:
#
#   SETUP='sudo mkdir -p /shared && sudo mount SERVER:/share /shared &&
#     cd /shared/kdjax && source .venv/bin/activate'
#
# TIER= takes capacity that isn't preempted. DRY_RUN=1 prints the commands.
set -euo pipefail

: "${TPU:?a name for the slice}" "${ZONE:?where it is to be}"
: "${TYPE:?its kind and size, as v5litepod-16}"
: "${SETUP:?what makes a worker ready}"
TIER=${TIER---spot}
case $TYPE in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac

run() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

queued() {
  local verb=$1
  shift
  run gcloud compute tpus queued-resources "$verb" "$TPU" --zone="$ZONE" "$@"
}

# Prints nothing where there is no such request.
state() {
  if [[ -n ${DRY_RUN:-} ]]; then
    echo "${asked:+ACTIVE}"
  else
    queued describe --format='value(state.state)' 2>/dev/null || true
  fi
}

# Returns once the slice is there. One that was preempted doesn't come back.
asked=
get_slice() {
  local now
  while now=$(state) && [[ $now != ACTIVE ]]; do
    case $now in
      '')
        queued create --node-id="$TPU" --accelerator-type="$TYPE" \
          --runtime-version="$runtime" ${TIER:+"$TIER"}
        asked=yes
        ;;
      SUSPENDED) queued delete --force --quiet ;;
      FAILED)
        echo "the request was refused, as queued-resources describe says" >&2
        exit 1
        ;;
      *) sleep "${PAUSE:-60}" ;;
    esac
  done
}

printf -v flags ' %q' "$@"
while true; do
  get_slice
  # Ends with the code of the first worker that doesn't end with 0.
  code=0
  run gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="$SETUP && exec python -m kdjax.main$flags" || code=$?
  [[ $code == 0 ]] && break
  sleep "${PAUSE:-60}"  # a preemption takes a while to show
  # 143 = 128 + SIGTERM: stopped and saved, as before maintenance.
  if [[ $(state) == ACTIVE && $code != 143 ]]; then
    echo "code $code would come again. The slice is still there, and paid for" >&2
    exit "$code"
  fi
done
queued delete --force --quiet
