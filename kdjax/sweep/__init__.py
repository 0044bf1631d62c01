"""Sweeps: from axes and seeds to runs, and their execution."""

from kdjax.sweep.axes import Axis, product
from kdjax.sweep.jobs import Job, Sweep, plan
from kdjax.sweep.pool import execute
from kdjax.sweep.slurm import write_array

__all__ = [
  'Axis',
  'Job',
  'Sweep',
  'execute',
  'plan',
  'product',
  'write_array',
]
