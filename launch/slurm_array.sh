#!/usr/bin/env bash
# Many runs, a task of a SLURM array each, every one on a node of its own. A
# file holds a run a line, as flags, quoted as in a shell:
#
#   --config=configs/gkd_xsum.py --config.recipe.lam=0.5 --workdir=/shared/half
#   --config=configs/gkd_xsum.py --config.recipe.lam=1.0 --workdir=/shared/one
#
# From the root of the repository, with kdjax's environment activated, at most 4
# runs at a time:
#
#   sbatch --array=1-$(wc -l < runs.txt)%4 launch/slurm_array.sh runs.txt
#
# What to change, here or as flags of sbatch: the GPUs (twice) and the time.
# SLURM_ARRAY_TASK_ID=1 DRY_RUN=1 bash launch/slurm_array.sh runs.txt prints
# what the first task would run. Stops and restarts are slurm.sh's.
#
#SBATCH --job-name=kdjax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

runs=${1:?give the file that holds the runs, one a line}
line=$(sed -n "${SLURM_ARRAY_TASK_ID:?submit with --array=1-N}p" "$runs")
if [[ -z $line ]]; then
  echo "$runs has no line $SLURM_ARRAY_TASK_ID: submit with --array=1-N" >&2
  exit 1
fi
# Splits as a shell does, and runs nothing.
mapfile -d '' -t flags < <(xargs printf '%s\0' <<< "$line")
# SLURM runs a copy of this file from elsewhere, but in the directory that it
# was submitted from.
exec bash launch/slurm.sh "${flags[@]}"
