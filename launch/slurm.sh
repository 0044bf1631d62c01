#!/usr/bin/env bash
# One run on one or many nodes of a SLURM cluster, a process a GPU. From the
# root of the repository, with the environment that has kdjax activated:
#
#   sbatch launch/slurm.sh --config=configs/gkd_xsum.py --workdir=/shared/run
#
# What to change, here or as flags of sbatch: the nodes, the GPUs a node (twice)
# and the time. DRY_RUN=1 bash launch/slurm.sh ... prints what would be run.
#
#SBATCH --job-name=kdjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# 5 minutes before the time is up, for the step that runs and a checkpoint.
#SBATCH --signal=TERM@300
# Back into the queue after preemption and when a node fails. Logs are kept.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

for flag in "$@"; do
  [[ $flag == --workdir=* ]] && workdir=${flag#*=}
done
: "${workdir:?give --workdir=DIR, a directory that all nodes see}"

# JAX reads SLURM's variables, and gives the process SLURM_LOCALID of a node its
# GPU of that number: no --gpus-per-task, with which each would see but one.
# A process that dies leaves the others 2 minutes to say so and to stop.
command=(srun --wait=120 --kill-on-bad-exit=0
  "${PYTHON:-python}" -m kdjax.main "$@")
if [[ -n ${DRY_RUN:-} ]]; then
  printf '%q ' "${command[@]}"
  exit
fi
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun inherits it no more

last_step() {
  find "$workdir/checkpoints" -maxdepth 1 -printf '%f\n' 2>/dev/null |
    grep -xE '[0-9]+' | sort -n | tail -n 1
}

# A warning goes to the processes alone. If this shell is signalled too, SLURM is
# ending the job, and decides itself whether it comes back: preempted ones do,
# cancelled ones don't.
ending=
trap 'ending=yes' TERM
before=$(last_step || true)
code=0
"${command[@]}" || code=$?

# 143 = 128 + SIGTERM: stopped and saved. Another code is an error, which would
# come again; so would a stop that came before the first step was done.
if [[ $code == 143 && -z $ending && $(last_step || true) != "$before" ]]; then
  job=$SLURM_JOB_ID
  # The last task of an array has the array's id, which would requeue them all.
  [[ -n ${SLURM_ARRAY_JOB_ID:-} ]] &&
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  exec scontrol requeue "$job"
fi
exit "$code"
