"""Files and folders are whole or not there."""

import errno
import os

import pytest

from kdjax import files


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
  path = tmp_path / 'a'
  files.write(path, 'first')
  files.write(path, b'second')
  assert path.read_bytes() == b'second'
  assert os.listdir(tmp_path) == ['a']


def test_what_fails_leaves_the_file_before_and_names_it(tmp_path):
  path = tmp_path / 'a'
  files.write(path, 'first')
  with pytest.raises(OSError) as error, files.whole(path) as file:
    file.write(b'half')
    raise OSError(errno.ENOSPC, 'No space left on device')
  assert error.value.filename == str(path)
  assert error.value.errno in files.DISK
  assert path.read_text() == 'first' and os.listdir(tmp_path) == ['a']


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
  path = tmp_path / 'a'
  for name in ('first', 'second'):
    with files.directory(path) as fresh:
      (fresh / name).write_text(name)
  assert os.listdir(path) == ['second'] and os.listdir(tmp_path) == ['a']
  with pytest.raises(KeyboardInterrupt), files.directory(path) as fresh:
    raise KeyboardInterrupt
  assert os.listdir(path) == ['second'] and os.listdir(tmp_path) == ['a']
