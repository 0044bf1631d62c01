"""Files that are whole or not there, whatever ends the process."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO

# What a disk fails by: no room, or no way to write to it. Whoever fixes that
# can go on; nothing about the run is wrong.
DISK = {
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EIO,
}


# What a process that the disk failed exits with.
EXIT = os.EX_IOERR


def exit_code(error: BaseException) -> int:
  """Returns what an error ends the process with: 1, or `EXIT` for a disk's."""
  return EXIT if getattr(error, 'errno', None) in DISK else 1


def expanded(text: str | os.PathLike) -> pathlib.Path:
  """Returns a path, '~' as the user's home; '~x' stays where nobody is x."""
  # pathlib's own raises then.
  return pathlib.Path(os.path.expanduser(text))


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Has the block write a file, which then takes the place of `path`.

  What is there stays until all of it is on the disk: neither a kill nor a power
  cut leaves half of it.

  Yields:
    the file that is to be written.

  Raises:
    OSError: the disk is full, or can't be written; names the file.
  """
  path = pathlib.Path(path)
  # The process's own, should another one write the same file.
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  with naming(path):
    try:
      with partial.open('wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      partial.replace(path)
    except BaseException:
      partial.unlink(missing_ok=True)
      raise
    sync(path.parent)


def write(path: str | os.PathLike, content: str | bytes) -> None:
  """Writes all of a file as `whole` does."""
  if isinstance(content, str):
    content = content.encode('utf-8')
  with whole(path) as file:
    file.write(content)


@contextlib.contextmanager
def directory(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Has the block fill a directory, which then takes the place of `path`.

  What is there stays until all of it is on the disk, as with `whole`.

  Yields:
    the directory that is to be filled.

  Raises:
    OSError: the disk is full, or can't be written; names the directory, or the
      file in it.
  """
  path = pathlib.Path(path)
  partial, old = (
    path.with_name(f'{path.name}.{x}') for x in ('partial', 'old')
  )
  with disk_errors(path):
    if old.exists() and not path.exists():
      # A kill between the two renames below left no other.
      old.rename(path)
    for leftover in (partial, old):
      shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
      yield partial
      sync_all(partial)
    except BaseException:
      shutil.rmtree(partial, ignore_errors=True)
      raise
    if path.exists():
      path.rename(old)
    partial.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: str | os.PathLike) -> None:
  """Has the disk keep a file's content, or the names in a directory."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_all(directory: str | os.PathLike) -> None:
  """Has the disk keep a directory and all that is in it."""
  for folder, _, names in os.walk(directory):
    for name in names:
      path = os.path.join(folder, name)
      # To open a pipe would be to wait for ever.
      if stat.S_ISREG(os.lstat(path).st_mode):
        sync(path)
    sync(folder)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Has errors of the block name a file: those of writing name none."""
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.errno is None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike) -> Iterator[None]:
  """Has errors of the disk be OSErrors that name a file or folder.

  Libraries that write files raise errors of other kinds, with the system's
  words. An OSError that names a file already stays as it is.
  """
  try:
    yield
  except Exception as error:
    if isinstance(error, OSError) and error.filename is not None:
      raise
    said = f'{error} {error.__cause__ or error.__context__ or ""}'
    for number in DISK:
      if getattr(error, 'errno', None) == number or os.strerror(number) in said:
        raise OSError(number, os.strerror(number), str(path)) from error
    raise
