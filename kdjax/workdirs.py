"""A workdir: the config and data it belongs to, and who writes to it."""

import contextlib
import errno
import fcntl
import fnmatch
import json
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax import distributed, files

logger = logging.getLogger(__name__)

LOCK = 'lock'


@contextlib.contextmanager
def claimed(
  workdir: str, config: Mapping[str, Any], harmless: Sequence[str] = ()
) -> Iterator[None]:
  """Runs the block as the only writer of a workdir, which is of this config.

  Writes config.json into a fresh workdir, made if need be.

  Args:
    workdir: where the run writes.
    config: JSON values, nested by name.
    harmless: patterns of dotted keys that may differ from the config that wrote
      the workdir ('log.*'); config.json then takes their values over.

  Raises:
    ValueError: as `check` and `locked` do.
  """
  check(workdir, config, harmless)
  with locked(workdir):
    if distributed.leads():
      text = json.dumps(config, indent=2, sort_keys=True) + '\n'
      files.write(pathlib.Path(workdir) / 'config.json', text)
    yield


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
  """Runs the block as the only writer of a workdir, made if need be.

  The lock is the system's own on a file: it goes with the process, however that
  ends. Of several processes of a run the first one has it.

  Raises:
    ValueError: another run writes there; the message says which process of
      which machine.
  """
  if not distributed.leads():
    yield
    return
  path = pathlib.Path(workdir) / LOCK
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a+', encoding='utf-8') as file:
    _lock(path, file)
    started = time.strftime('%Y-%m-%d %H:%M:%S')
    with files.naming(path):
      file.truncate(0)
      file.write(
        f'process {os.getpid()} on {socket.gethostname()}, since {started}'
      )
      file.flush()
    yield


def check(
  workdir: str, config: Mapping[str, Any], harmless: Sequence[str] = ()
):
  """Checks a workdir as `claimed` does, and changes nothing.

  Raises:
    ValueError: the workdir belongs to a run with another config (the message
      lists every key that differs), or to one unknown; or it is a file or a
      bucket.
  """
  if '://' in str(workdir):
    raise ValueError(
      f'--workdir={workdir}: give a directory, as metrics are appended to '
      'files. A bucket can be mounted as one.'
    )
  home = pathlib.Path(workdir)
  if home.exists() and not home.is_dir():
    raise ValueError(f'--workdir={workdir} is a file: give a directory.')
  path = home / 'config.json'
  if path.exists():
    _compare(path, json.loads(json.dumps(config)), harmless)
  elif any((home / 'checkpoints').glob('[0-9]*')):
    raise ValueError(
      f'{workdir} holds checkpoints but no config.json that says which '
      'config wrote them. Give another --workdir, or delete this one.'
    )


def note_data(
  workdir: str | os.PathLike, counts: Mapping[str, Any], resumed: bool
) -> None:
  """Writes data.json: what every split gave, and what was left out of it.

  Args:
    workdir: of a run that the caller has claimed.
    counts: JSON values by split. Those that have a 'sha256' are trained on, and
      may not change.
    resumed: whether the run began earlier.

  Raises:
    ValueError: the run that is resumed was trained on other data.
  """
  if not distributed.leads():
    return
  path = pathlib.Path(workdir) / 'data.json'
  if resumed and path.exists():
    before = _read(path, 'what a run read')
    trained = {k: v for k, v in before.items() if 'sha256' in v}
    found = differences(
      trained, {split: counts.get(split) for split in trained}
    )
    if found:
      raise ValueError(
        f'{workdir} belongs to a run on other data. What differs (there → '
        'here):\n  '
        + '\n  '.join(found)
        + '\nPut the data back as they were, or give another --workdir.'
      )
  files.write(path, json.dumps(counts, indent=2) + '\n')


def check_free(workdir: str | os.PathLike):
  """Raises ValueError where another run is writing into a workdir."""
  path = pathlib.Path(workdir) / LOCK
  if distributed.leads() and path.exists():
    with path.open('a+', encoding='utf-8') as file:
      _lock(path, file)


def differences(
  old: Mapping[str, Any], new: Mapping[str, Any], harmless: Sequence[str] = ()
) -> list[str]:
  """Returns 'key: old → new' of what two nested configs differ in."""
  before, after = _flatten(old), _flatten(new)
  return [
    f'{key}: {before.get(key, "(absent)")} → {after.get(key, "(absent)")}'
    for key in sorted(set(before) | set(after))
    if before.get(key) != after.get(key)
    and not any(fnmatch.fnmatchcase(key, each) for each in harmless)
  ]


def _lock(path: pathlib.Path, file: Any) -> None:
  """Locks an open file until it is closed."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    raise ValueError(
      f'another run writes into {path.parent}: {file.read() or "unknown"}. '
      'Wait for its end, stop it, or give another --workdir.'
    ) from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
      raise
    logger.warning(
      '%s cannot be locked there (%s): see to it that no other run writes '
      'into this workdir',
      path,
      error.strerror,
    )


def _compare(path: pathlib.Path, config: Any, harmless: Sequence[str]):
  differing = differences(_read(path, 'a config'), config, harmless)
  if differing:
    raise ValueError(
      f'{path.parent} was written by another config. What differs '
      '(there → asked for):\n  '
      + '\n  '.join(differing)
      + '\nGive another --workdir to start afresh, delete this one, or run the '
      'config that wrote it to go on.'
    )


def _read(path: pathlib.Path, what: str) -> dict[str, Any]:
  """Reads a JSON object; `what` says what it should tell."""
  try:
    found = json.loads(path.read_text('utf-8'))
    if not isinstance(found, dict):
      raise ValueError(f'it holds {type(found).__name__}, not an object')
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{path} is not JSON of {what} ({error}). Give another --workdir, or '
      'delete this one.'
    ) from error
  return found


def _flatten(tree: Any, prefix: str = '') -> dict[str, str]:
  """Returns the JSON of each leaf by dotted key; lists are leaves."""
  if not isinstance(tree, dict) or not tree:
    return {prefix: json.dumps(tree, sort_keys=True)}
  flat = {}
  for key, value in tree.items():
    flat |= _flatten(value, f'{prefix}.{key}' if prefix else key)
  return flat
