"""The folder of a run's checkpoints, and what is found there."""

import contextlib
import itertools
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

from kdjax import files
from kdjax.checkpoints import seals

logger = logging.getLogger(__name__)

# What is on its way: into being, as orbax calls it, and out of it.
_UNFINISHED, _REMOVED = '.orbax-checkpoint-tmp', '.removed'


def sealed(directory: pathlib.Path) -> dict[int, dict[str, float] | None]:
  """Returns the metrics of each step that has a seal."""
  found = {}
  for step in _steps(directory):
    try:
      found[step] = seals.read(directory / str(step)).get('metrics')
    except (OSError, ValueError) as error:
      logger.warning('%s/%d is left out: %s', directory, step, error)
  return found


def tidy(directory: pathlib.Path) -> int | None:
  """Makes a folder ready to be written to; makes it, if need be.

  Removes what killed processes left on its way. The newest checkpoints, as far
  as they are damaged, make room for those that will be saved anew: they are
  moved to `damaged` beside the folder.

  Returns:
    the newest step, which is whole, or None where there is none.

  Raises:
    ValueError: no checkpoint is whole, and more than a first one was cut short;
      nothing is moved then.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for path in directory.iterdir():
    if path.name.endswith(_REMOVED) or _UNFINISHED in path.name:
      shutil.rmtree(path)
  damaged, whole = {}, None
  for step in reversed(_steps(directory)):
    problem = seals.problem(directory / str(step))
    if problem is None:
      whole = step
      break
    damaged[step] = problem
  cut_short = (
    len(damaged) == 1 and not (directory / str(*damaged) / seals.NAME).exists()
  )
  if damaged and whole is None and not cut_short:
    raise ValueError(
      f'no checkpoint in {directory} is whole: '
      + '; '.join(f'step {step}: {why}' for step, why in damaged.items())
      + '. Put back a copy, or start afresh in another --workdir.'
    )
  for step, problem in damaged.items():
    home = _set_aside(directory / str(step))
    logger.warning(
      'the checkpoint of step %d is damaged (%s) and now in %s: going on from '
      '%s',
      step,
      problem,
      home,
      'the start' if whole is None else f'step {whole}',
    )
  return whole


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  """Moves a checkpoint to `damaged`, where others may be already."""
  home = path.parent.parent / 'damaged'
  home.mkdir(exist_ok=True)
  others = (f'{path.name}-{i}' for i in itertools.count(2))
  names = (home / name for name in itertools.chain([path.name], others))
  return path.rename(next(name for name in names if not name.exists()))


def remove(path: pathlib.Path) -> None:
  """Removes a checkpoint; one that is half removed has another name."""
  gone = path.rename(path.with_name(path.name + _REMOVED))
  shutil.rmtree(gone)


@contextlib.contextmanager
def disk_errors(directory: pathlib.Path) -> Iterator[None]:
  """Has errors of the disk be OSErrors that name the folder.

  What writes arrays raises errors of other kinds, with the system's words.
  """
  try:
    yield
  except Exception as error:
    said = f'{error} {error.__cause__ or error.__context__ or ""}'
    for number in files.DISK:
      if getattr(error, 'errno', None) == number or os.strerror(number) in said:
        raise OSError(number, os.strerror(number), str(directory)) from error
    raise


def _steps(directory: pathlib.Path) -> list[int]:
  if not directory.is_dir():
    return []
  names = (path.name for path in directory.iterdir())
  # As they are written: '007' is nobody's.
  return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))
