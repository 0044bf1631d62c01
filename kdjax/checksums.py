"""Checksums: whether a file still is as it was written."""

import contextlib
import hashlib
import json
import os
import pathlib
import stat
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kdjax import files

# Larger files are told from others by a hash that is noted.
LARGE = 64 * 2**20
# No record that kdjax writes comes near it.
_RECORD_BYTES = 16 * 2**20
_SEAL = 'sha256'


def cache_root(directory: str | os.PathLike | None = None) -> pathlib.Path:
  """Returns where kdjax keeps what it can make again: $KDJAX_CACHE by default.

  Without that variable, ~/.cache/kdjax.
  """
  root = directory or os.environ.get('KDJAX_CACHE') or '~/.cache/kdjax'
  return files.expanded(root)


def write(path: pathlib.Path, parts: Iterable[Any]) -> dict[str, Any]:
  """Writes a file that is whole or not there, and on the disk at the return.

  Like `files.write`, but in parts, which need not be in memory together.

  Args:
    path: of the file; what was there is replaced.
    parts: bytes, or arrays of them, one after another.

  Returns:
    its 'bytes' and 'sha256'.

  Raises:
    OSError: naming the file; nothing of it stays.
  """
  digest = hashlib.sha256()
  with files.whole(path) as file:
    for part in parts:
      digest.update(part)
      file.write(part)
    size = file.tell()
  return {'bytes': size, 'sha256': digest.hexdigest()}


def sha256(path: pathlib.Path) -> str:
  """Returns the sha256 of a file: a gigabyte takes most of a second.

  Raises:
    OSError: it can't be read.
  """
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def known_sha256(path: pathlib.Path) -> str:
  """Returns the sha256 of a file, which tells one from another.

  Of one beyond `LARGE` it is noted in `cache_root`, and holds as long as the
  file's size, inode and time of change do.

  Raises:
    OSError: it can't be read.
  """
  state = path.stat()
  if state.st_size < LARGE:
    return sha256(path)
  known = [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
  name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
  note = cache_root() / 'hashes' / f'{name}.json'
  with contextlib.suppress(OSError, ValueError, KeyError):
    found = read_record(note)
    if found.get('state') == known:
      return found['content']
  digest = sha256(path)
  # Right after a change, another one could bear the same time.
  if time.time() - path.stat().st_mtime > 2:
    with contextlib.suppress(OSError):
      note.parent.mkdir(parents=True, exist_ok=True)
      write_record(note, {'content': digest, 'state': known})
  return digest


def damage(
  path: pathlib.Path, expected: Any, name: str | None = None
) -> str | None:
  """Returns what is wrong with a file, or None.

  Args:
    path: of the file.
    expected: what `write` returned of it, as a record holds it.
    name: what to call it; by default its own name.
  """
  name = name or path.name
  if not isinstance(expected, dict) or set(expected) != {'bytes', 'sha256'}:
    return f'the record of {name} is not a record'
  if not path.exists():
    return f'{name} is missing'
  if not _plain(path):
    return f'{name} is not a regular file'
  size = path.stat().st_size
  if size != expected['bytes']:
    return f'{name} has {size} bytes, not {expected["bytes"]}'
  if sha256(path) != expected['sha256']:
    return f'the content of {name} is not what was written (sha256)'
  return None


def _plain(path: pathlib.Path) -> bool:
  """Whether it is a file: no pipe to wait at, no link that leads elsewhere."""
  return stat.S_ISREG(path.lstat().st_mode)


def canonical(content: Any) -> bytes:
  """Returns JSON that is the same for equal content."""
  return json.dumps(content, sort_keys=True, default=str).encode()


def digest(content: Any) -> str:
  """Returns the sha256 of content that JSON can hold."""
  return hashlib.sha256(canonical(content)).hexdigest()


def write_record(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes an object as JSON, with a checksum of its own.

  Raises:
    OSError: naming the file; nothing of it stays.
  """
  content = json.loads(canonical(content))
  sealed = {**content, _SEAL: digest(content)}
  files.write(path, f'{json.dumps(sealed, indent=2)}\n')


def read_record(path: pathlib.Path) -> dict[str, Any]:
  """Reads what `write_record` wrote.

  Raises:
    OSError: it can't be read.
    ValueError: it isn't as it was written.
  """
  if not _plain(path):
    raise ValueError(f'{path} is damaged: it is not a regular file')
  if path.stat().st_size > _RECORD_BYTES:
    raise ValueError(f'{path} is damaged: it has {path.stat().st_size} bytes')
  text = path.read_bytes()
  try:
    content = json.loads(text)
    deep = _deep(content)
  except RecursionError:
    deep = True
  except ValueError as error:
    raise ValueError(f'{path} is damaged: {error}') from None
  if deep or not isinstance(content, dict):
    raise ValueError(f'{path} is damaged: not a record, or nested too deep')
  if content.pop(_SEAL, None) != digest(content):
    raise ValueError(f'{path} is damaged: its checksum differs')
  return content


def _deep(value: Any, room: int = 20) -> bool:
  """Whether what JSON gave is nested deeper than any record is."""
  inside = value.values() if isinstance(value, dict) else value
  if not isinstance(value, dict | list):
    return False
  return not room or any(_deep(each, room - 1) for each in inside)
