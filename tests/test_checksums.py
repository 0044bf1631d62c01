"""Records and files are what was written, or say that they are not."""

import hashlib
import json
import os
import resource
import time

import numpy as np
import pytest

from kdjax import checksums


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('KDJAX_CACHE', str(tmp_path / 'cache'))


def test_a_file_in_parts_is_the_whole(tmp_path):
  path = tmp_path / 'file'
  parts = [b'abc', np.arange(3, dtype='<i4').data, b'']
  found = checksums.write(path, parts)
  whole = b''.join(map(bytes, parts))
  assert path.read_bytes() == whole
  digest = hashlib.sha256(whole).hexdigest()
  assert found == {'bytes': 15, 'sha256': digest}
  assert checksums.sha256(path) == digest
  assert checksums.damage(path, found) is None
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
  path = tmp_path / 'file'
  checksums.write(path, [b'before'])

  def parts():
    yield b'half'
    raise OSError(28, 'No space left on device')

  with pytest.raises(OSError, match='No space left.*file'):
    checksums.write(path, parts())
  assert path.read_bytes() == b'before'
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_the_systems_own_limit_names_the_file(tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
  try:
    with pytest.raises(OSError, match='File too large.*file'):
      checksums.write(tmp_path / 'file', [bytes(600)] * 3)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (lambda p: p.unlink(), 'is missing'),
    (lambda p: p.write_bytes(b'12'), 'has 2 bytes, not 3'),
    (lambda p: p.write_bytes(b'124'), 'not what was written'),
  ],
)
def test_damage_is_told(change, reason, tmp_path):
  path = tmp_path / 'file'
  known = checksums.write(path, [b'123'])
  change(path)
  assert reason in checksums.damage(path, known)
  assert 'record' in checksums.damage(path, [known])


def test_a_record_comes_back_and_notices_every_byte(tmp_path):
  path = tmp_path / 'record'
  content = {'a': [1, 2.5, None], 'b': {'ä': '\u2028'}, 'c': (1, 2)}
  checksums.write_record(path, content)
  assert checksums.read_record(path) == {**content, 'c': [1, 2]}
  whole = path.read_bytes()
  for i in range(len(whole)):
    flipped = bytes([whole[i] ^ 1])
    path.write_bytes(whole[:i] + flipped + whole[i + 1 :])
    if i < len(whole) - 1:  # the last one is a line's end
      with pytest.raises(ValueError, match='damaged'):
        checksums.read_record(path)
    path.write_bytes(whole[:i])
    if i < len(whole) - 1:
      with pytest.raises(ValueError, match='damaged'):
        checksums.read_record(path)


def test_records_are_small_and_shallow(tmp_path):
  path = tmp_path / 'record'
  with path.open('wb') as file:
    file.truncate(2**31)
  with pytest.raises(ValueError, match='2147483648 bytes'):
    checksums.read_record(path)
  deep = {'a': json.loads('[' * 200 + ']' * 200)}
  checksums.write_record(path, deep)
  with pytest.raises(ValueError, match='too deep'):
    checksums.read_record(path)
  path.write_text('[' * 10**5)
  with pytest.raises(ValueError, match='too deep'):
    checksums.read_record(path)


def test_large_files_are_read_once_until_they_change(tmp_path, monkeypatch):
  monkeypatch.setattr(checksums, 'LARGE', 10)
  path = tmp_path / 'large'
  path.write_bytes(b'x' * 20)
  old = time.time() - 60
  os.utime(path, (old, old))
  reads = []
  real = hashlib.file_digest

  def spy(file, name):
    reads.append(file.name)
    return real(file, name)

  monkeypatch.setattr(hashlib, 'file_digest', spy)
  first = checksums.known_sha256(path)
  assert (
    checksums.known_sha256(path)
    == first
    == hashlib.sha256(b'x' * 20).hexdigest()
  )
  assert len(reads) == 1
  path.write_bytes(b'y' * 20)
  os.utime(path, (old, old))  # size and time of change are the old ones
  assert checksums.known_sha256(path) != first
  (note,) = (tmp_path / 'cache' / 'hashes').iterdir()
  note.write_text('{}')
  assert checksums.known_sha256(path) == hashlib.sha256(b'y' * 20).hexdigest()
