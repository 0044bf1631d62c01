"""A materialised Task on disk: arrays that are mapped into memory.

A directory holds an array a file, and `header.json` with their checksums. It
appears under its name only once it is whole; what is damaged later is noticed.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kdjax import checksums
from kdjax.data.examples import Examples, Ragged, References, Texts
from kdjax.data.faults import LeftOut

_HEADER = 'header.json'
_TEACHER = 'teacher_prompts-'
_PARTIAL = '.partial'
# What nobody has finished by then was left by a process that was killed.
_FORGOTTEN = 24 * 3600


def write(directory: pathlib.Path, examples: Examples) -> None:
  """Writes examples, atomically: a killed run leaves no half of a cache.

  Raises:
    OSError: they can't be written; nothing of them stays.
  """
  home = directory.parent
  home.mkdir(parents=True, exist_ok=True)
  for left in home.glob(f'*{_PARTIAL}'):
    with contextlib.suppress(OSError):
      if time.time() - left.stat().st_mtime > _FORGOTTEN:
        shutil.rmtree(left, ignore_errors=True)
  with tempfile.TemporaryDirectory(suffix=_PARTIAL, dir=home) as temporary:
    whole = pathlib.Path(temporary) / 'examples'
    whole.mkdir()
    known = {}
    for name, array in _arrays(examples):
      np.save(whole / name, array, allow_pickle=False)
      known[name] = _sums(whole / name)
    header = {
      'task': examples.task,
      'split': examples.split,
      'vocabulary': examples.vocabulary_fingerprint,
      'left_out': dataclasses.asdict(examples.left_out),
      'files': known,
    }
    checksums.write_record(whole / _HEADER, header)
    try:
      os.rename(whole, directory)
    except OSError:
      # Another process wrote the same content first.
      if not directory.exists():
        raise


def _sums(path: pathlib.Path) -> dict[str, Any]:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return {'bytes': path.stat().st_size, 'sha256': digest}


def _arrays(examples: Examples) -> Iterator[tuple[str, np.ndarray]]:
  parts = {
    'ids': examples.ids.encoded,
    'inputs': examples.inputs.encoded,
    'references': examples.references.texts.encoded,
    'groups': examples.references.groups,
    'prompts': examples.prompts,
    'responses': examples.responses,
    'rejected': examples.rejected,
    **{
      f'{_TEACHER}{i}': prompts
      for i, prompts in enumerate(examples.teacher_prompts)
    },
  }
  for name, ragged in parts.items():
    if ragged is not None:
      yield f'{name}.values.npy', ragged.values
      yield f'{name}.offsets.npy', ragged.offsets


def read(directory: pathlib.Path) -> Examples:
  """Reads what `write` wrote; tokens and texts stay on disk until used.

  Raises:
    OSError: it can't be read.
    ValueError: it isn't as it was written.
  """
  header = checksums.read_record(directory / _HEADER)
  known = header.get('files')
  if not isinstance(known, dict):
    raise ValueError(f'{directory / _HEADER} is damaged: it names no files')

  def held(name: str) -> bool:
    return f'{name}.offsets.npy' in known

  def ragged(name: str, kind: Any = np.int32) -> Ragged:
    parts = [
      _array(directory / f'{name}.{part}.npy', known)
      for part in ('values', 'offsets')
    ]
    _check(directory / name, *parts, kind)
    return Ragged(*parts)

  def optional(name: str) -> Ragged | None:
    return ragged(name) if held(name) else None

  templates = (f'{_TEACHER}{i}' for i in itertools.count())
  names = (str(header.get(key)) for key in ('task', 'split', 'vocabulary'))
  texts = Texts(ragged('references', np.uint8))
  found = Examples(
    *names,
    ids=Texts(ragged('ids', np.uint8)),
    inputs=Texts(ragged('inputs', np.uint8)),
    references=References(texts, ragged('groups', np.int64)),
    prompts=ragged('prompts'),
    responses=optional('responses'),
    rejected=optional('rejected'),
    teacher_prompts=tuple(map(ragged, itertools.takewhile(held, templates))),
    left_out=_left_out(directory, header.get('left_out')),
  )
  _check_rows(directory, found)
  return found


def _array(path: pathlib.Path, known: Mapping[str, Any]) -> np.ndarray:
  if reason := checksums.damage(path, known.get(path.name)):
    raise ValueError(f'{path} is damaged: {reason}')
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except Exception as error:  # NumPy raises many kinds.
    raise ValueError(f'{path} is not an array: {error}') from None


def _check(
  path: pathlib.Path, values: np.ndarray, offsets: np.ndarray, kind: Any
) -> None:
  """Raises unless the offsets cut all values into rows."""
  whole = (
    values.dtype == kind
    and offsets.dtype == np.int64
    and values.ndim == offsets.ndim == 1
    and offsets[:1].tolist() == [0]
    and offsets[-1] == len(values)
    and bool((offsets[1:] >= offsets[:-1]).all())
  )
  if not whole:
    raise ValueError(f'{path}: its values and offsets do not make rows')


def _left_out(directory: pathlib.Path, found: Any) -> LeftOut:
  try:
    left_out = LeftOut(**found)
    str(left_out)
    return left_out
  except Exception as error:  # Whatever stands there.
    raise ValueError(f'{directory / _HEADER} is damaged: {error}') from None


def _check_rows(directory: pathlib.Path, found: Examples) -> None:
  """Raises unless all parts are of the same examples."""
  parts = [found.inputs, found.references, found.prompts]
  parts += [x for x in (found.responses, found.rejected) if x is not None]
  parts += found.teacher_prompts
  groups = found.references.groups.values
  if {len(found)} != {len(part) for part in parts} or (
    groups.size
    and not 0 <= groups.min() <= groups.max() < len(found.references.texts)
  ):
    raise ValueError(f'{directory}: its parts are not of the same examples')


def remove(directory: pathlib.Path) -> None:
  """Removes what is damaged, whoever else may be doing the same."""
  with contextlib.suppress(OSError):
    aside = pathlib.Path(
      tempfile.mkdtemp(suffix=_PARTIAL, dir=directory.parent)
    )
    with contextlib.suppress(OSError):
      os.rename(directory, aside / 'damaged')
    shutil.rmtree(aside, ignore_errors=True)
