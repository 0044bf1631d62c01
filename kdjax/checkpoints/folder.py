"""The folder of a run's checkpoints, and what is found there."""

import itertools
import logging
import pathlib
import shutil
from collections.abc import Mapping

from kdjax.checkpoints import seals

logger = logging.getLogger(__name__)

# What is on its way: into being, as orbax calls it, and out of it.
_UNFINISHED, _REMOVED = '.orbax-checkpoint-tmp', '.removed'


def sealed(
  directory: pathlib.Path,
) -> tuple[dict[int, dict[str, float] | None], dict[int, str]]:
  """Returns the metrics of each step with a seal; why others have none."""
  found, without = {}, {}
  for step in _steps(directory):
    try:
      found[step] = seals.read(directory / str(step)).get('metrics')
    except (OSError, ValueError) as error:
      logger.warning('%s/%d is left out: %s', directory, step, error)
      without[step] = str(error)
  return found, without


def tidy(directory: pathlib.Path, every: int) -> int | None:
  """Makes a folder ready to be written to; makes it, if need be.

  Removes what killed processes left on its way. The newest checkpoints, as far
  as they are damaged, make room for those that will be saved anew: they are
  moved to `damaged` beside the folder.

  A run whose first save was cut short starts over: one step without a seal is
  all that is there, and no later than a first one can be. One that was sealed,
  and is the only one of the first `every` steps, can't be told from it once
  that seal is gone.

  Args:
    directory: of all checkpoints.
    every: steps between checkpoints; the first comes after as many at most.

  Returns:
    the newest step, which is whole, or None where there is none.

  Raises:
    ValueError: no checkpoint is whole, and more than a first one was cut short;
      nothing is moved then.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for path in directory.iterdir():
    if path.name.endswith(_REMOVED) or _UNFINISHED in path.name:
      _delete(path)
  damaged, whole = {}, None
  for step in reversed(_steps(directory)):
    problem = seals.problem(directory / str(step))
    if problem is None:
      whole = step
      break
    damaged[step] = problem
  if damaged and whole is None:
    (first, *later) = reversed(damaged)
    sealed_once = (directory / str(first) / seals.NAME).exists()
    if later or sealed_once or first > every:
      raise none_whole(directory, damaged)
  homes = {step: _set_aside(directory / str(step)) for step in damaged}
  warn(damaged, whole, homes)
  return whole


def warn(
  damaged: Mapping[int, str],
  whole: int | None,
  homes: Mapping[int, pathlib.Path] = {},
) -> None:
  """Warns of damaged checkpoints.

  Args:
    damaged: what is wrong with each step.
    whole: the step that takes their place; None: the start.
    homes: where they are now, if they were moved.
  """
  for step, problem in damaged.items():
    logger.warning(
      'the checkpoint of step %d is damaged (%s)%s: going on from %s',
      step,
      problem,
      f' and now in {homes[step]}' if step in homes else '',
      'the start' if whole is None else f'step {whole}',
    )


def none_whole(
  directory: pathlib.Path, damaged: Mapping[int, str]
) -> ValueError:
  """Returns the error of a folder of damaged checkpoints, whose run stops."""
  return ValueError(
    f'no checkpoint in {directory} is whole: '
    + '; '.join(f'step {step}: {why}' for step, why in damaged.items())
    + '. Put back a copy, or start afresh in another --workdir.'
  )


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  """Moves a checkpoint to `damaged`, where others may be already."""
  home = path.parent.parent / 'damaged'
  home.mkdir(exist_ok=True)
  others = (f'{path.name}-{i}' for i in itertools.count(2))
  names = (home / name for name in itertools.chain([path.name], others))
  # Between file systems, where the folder of checkpoints is a link or a mount,
  # a directory is copied.
  target = next(name for name in names if not name.exists())
  return pathlib.Path(shutil.move(path, target))


def remove(path: pathlib.Path) -> None:
  """Removes a checkpoint; one that is half removed has another name."""
  gone = path.with_name(path.name + _REMOVED)
  _delete(gone)
  path.rename(gone)
  _delete(gone)


def _delete(path: pathlib.Path) -> None:
  """Removes a directory, or whatever else has its name."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def _steps(directory: pathlib.Path) -> list[int]:
  if not directory.is_dir():
    return []
  names = (path.name for path in directory.iterdir())
  # As they are written: '007' is nobody's.
  return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))
