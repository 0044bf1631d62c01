"""A sweep as a SLURM array."""

import pathlib
import shlex
from collections.abc import Sequence

from kdjax.sweep.jobs import Job


def write_array(out: pathlib.Path, jobs: Sequence[Job], at_once: int) -> str:
  """Writes `runs.txt`, a job a line; returns the command that submits them.

  Paths are absolute: where an array's tasks run, they have to be there too.
  """
  out = out.absolute()
  path = out / 'runs.txt'
  lines = [shlex.join(job.arguments(out)) + '\n' for job in jobs]
  path.write_text(''.join(lines))
  array = f'--array=1-{len(jobs)}%{at_once}'
  return shlex.join(['sbatch', array, 'launch/slurm_array.sh', str(path)])
