"""Seals: the checksums that tell a whole checkpoint from a damaged one.

A seal is written once all else is on the disk. So a checkpoint without one was
never finished, and whatever happens to its files afterwards shows.
"""

import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax import checksums, files

NAME = 'seal.json'

# Of the seal, and of what it seals: changed with the meaning of either.
FORMAT = 1


def write(directory: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Seals what a directory holds, once that outlives a power cut.

  Args:
    directory: of the checkpoint.
    about: JSON values that the seal says beside.

  Raises:
    OSError: a file can't be read, or the seal not written.
  """
  files.sync_all(directory)
  contents = {}
  for name, path in _walk(directory):
    digest = checksums.sha256(path)
    contents[name] = {'bytes': path.stat().st_size, 'sha256': digest}
  seal = {'format': FORMAT, **about, 'files': contents}
  checksums.write_record(directory / NAME, seal)


def amend(directory: pathlib.Path, **changes: Any) -> None:
  """Changes what a seal says beside its checksums."""
  checksums.write_record(directory / NAME, {**read(directory), **changes})


def read(directory: pathlib.Path) -> dict[str, Any]:
  """Returns what a seal says.

  Raises:
    ValueError: there is none, or it can't be trusted; says why.
  """
  try:
    seal = checksums.read_record(directory / NAME)
  except FileNotFoundError:
    raise ValueError(
      f'it has no {NAME}: saving it was cut short, or another version of '
      'kdjax wrote it'
    ) from None
  if seal.get('format') != FORMAT:
    raise ValueError(
      f'its format is {seal.get("format")}, this kdjax reads {FORMAT}: use the '
      f'kdjax that wrote it, {seal.get("kdjax", "unknown")}'
    )
  if not _numbers(seal.get('metrics')):
    raise ValueError(f'the metrics in its {NAME} are not numbers by name')
  if str(seal.get('step')) != directory.name:
    raise ValueError(f'it is the checkpoint of step {seal.get("step")}')
  return seal


def _numbers(metrics: Any) -> bool:
  """Whether it is what a step's metrics are: floats by name, or None."""
  if metrics is None:
    return True
  return isinstance(metrics, dict) and all(
    isinstance(value, float) for value in metrics.values()
  )


def problem(directory: pathlib.Path) -> str | None:
  """Returns what is wrong with a checkpoint, or None where it is whole."""
  try:
    sealed = read(directory).get('files')
    if not isinstance(sealed, dict):
      return f'its {NAME} lists no files'
    found = dict(_walk(directory))
    for name, known in sealed.items():
      if name not in found:
        return f'{name} is missing'
      if reason := checksums.damage(found[name], known, name):
        return reason
  except (OSError, ValueError) as error:
    return str(error)
  return None


def _walk(directory: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Yields (name, path) of all files but the seal, and follows no links."""
  for folder, _, names in os.walk(directory, followlinks=False):
    for name in sorted(names):
      path = pathlib.Path(folder) / name
      if path == directory / NAME:
        continue
      # To read a pipe would be to wait for ever.
      if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f'{path.relative_to(directory)} is not a regular file')
      yield path.relative_to(directory).as_posix(), path
