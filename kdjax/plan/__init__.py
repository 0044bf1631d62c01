"""What a run needs and takes on TPUs that aren't here: `--mode=plan`.

The step of a config is compiled ahead of time, as shapes, by the compiler of
the chips themselves (libtpu, which needs no TPU).
"""

import json
import pathlib

from kdjax.config import Config
from kdjax.plan import chips, programs, report
from kdjax.plan import job as job_lib

__all__ = ['make', 'plan']


def plan(config: Config, workdir: str | None, topology: str) -> None:
  """Prints a plan; writes plan.md and plan.json where there is a workdir.

  Args:
    config: of the run.
    workdir: where to write, or None.
    topology: a generation and a slice, such as 'v5e:4x4'.

  Raises:
    ImportError: libtpu isn't installed.
    ValueError: there is no such topology, or the mesh can't be made of it.
  """
  made = make(config, topology)
  text = report.markdown(made)
  print(text)
  if workdir:
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'plan.md').write_text(text)
    numbers = json.dumps(report.data(made), indent=2)
    (folder / 'plan.json').write_text(numbers + '\n')


def make(config: Config, topology: str) -> report.Plan:
  """Returns the plan of a config; raises as `plan` does."""
  chip, devices = chips.devices(topology)
  job = job_lib.make(config, devices)
  found = programs.compile_all(job, chip)
  return report.Plan(topology, chip, job, tuple(found))
