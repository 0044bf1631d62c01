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


def test_a_folder_is_on_the_disk_before_it_takes_its_place(
  tmp_path, monkeypatch
):
  path, synced = tmp_path / 'a', set()

  def sync(descriptor):
    if not path.exists():
      synced.add(os.fstat(descriptor).st_ino)

  monkeypatch.setattr(os, 'fsync', sync)
  with files.directory(path) as fresh:
    (fresh / 'inner').mkdir()
    (fresh / 'b').write_text('b')
    (fresh / 'inner' / 'c').write_text('c')
  assert {each.stat().st_ino for each in [path, *path.rglob('*')]} <= synced


def test_the_only_folder_that_a_kill_left_is_put_back(tmp_path):
  (tmp_path / 'a.old').mkdir()
  (tmp_path / 'a.old' / 'first').write_text('')
  with pytest.raises(OSError), files.directory(tmp_path / 'a'):
    raise OSError(errno.ENOSPC, 'No space left on device')
  assert os.listdir(tmp_path) == ['a']
  assert os.listdir(tmp_path / 'a') == ['first']


def test_what_libraries_say_of_the_disk_names_the_folder(tmp_path):
  path = tmp_path / 'a'
  with pytest.raises(OSError) as error, files.directory(path):
    # As tokenizers do; safetensors have a class of their own.
    raise Exception('No space left on device (os error 28)')
  assert error.value.errno == errno.ENOSPC
  assert error.value.filename == str(path)
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  'error',
  [ValueError('a bad value'), PermissionError(errno.EACCES, 'denied', '/x')],
)
def test_other_errors_stay_as_they_are(error, tmp_path):
  with pytest.raises(type(error)) as raised, files.directory(tmp_path / 'a'):
    raise error
  assert raised.value is error
