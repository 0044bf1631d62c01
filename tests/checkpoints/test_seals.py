"""A seal tells a whole folder from one that anything happened to."""

import json
import math
import os

import pytest

from kdjax.checkpoints import seals


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / '3'
  (folder / 'inner').mkdir(parents=True)
  (folder / 'a').write_bytes(b'12345')
  (folder / 'inner' / 'b').write_bytes(b'')
  about = {'step': 3, 'metrics': {'x': math.nan}, 'config': {'k': [1, 0.1]}}
  seals.write(folder, about)
  return folder


def test_what_was_sealed_is_whole(folder):
  assert seals.problem(folder) is None
  seal = seals.read(folder)
  assert seal['step'] == 3 and math.isnan(seal['metrics']['x'])
  assert set(seal['files']) == {'a', 'inner/b'}
  # A file beside it, such as a file manager's, is no damage.
  (folder / '.DS_Store').write_text('')
  assert seals.problem(folder) is None


def test_amended_seals_hold_the_same_checksums(folder):
  seals.amend(folder, metrics={'x': 1.0})
  assert seals.problem(folder) is None
  assert seals.read(folder)['metrics'] == {'x': 1.0}
  (folder / 'a').write_bytes(b'12346')
  assert (
    seals.problem(folder) == 'the content of a is not what was written (sha256)'
  )


def test_every_single_byte_counts(folder):
  for path in (folder / 'a', folder / seals.NAME):
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 50)):
      changed = bytearray(content)
      changed[place] ^= 4
      path.write_bytes(changed)
      # Between JSON's parts any white space reads the same.
      if json_of(changed) != json_of(content):
        assert seals.problem(folder), (path, place)
    path.write_bytes(content)
  assert seals.problem(folder) is None


def json_of(content):
  try:
    return json.dumps(json.loads(bytes(content)))
  except ValueError:
    return bytes(content)


def test_what_is_wrong_is_named(folder):
  (folder / 'a').write_bytes(b'1234')
  assert seals.problem(folder) == 'a has 4 bytes, not 5'
  (folder / 'a').unlink()
  assert seals.problem(folder) == 'a is missing'
  os.mkfifo(folder / 'a')
  assert seals.problem(folder) == 'a is not a regular file'
  (folder / seals.NAME).unlink()
  assert 'has no seal.json' in seals.problem(folder)
  assert 'has no seal.json' in seals.problem(folder / 'nowhere')


@pytest.mark.parametrize(
  'content', [b'', b'\xff', b'[]', b'{}', b'null', b'[' * 9999, b'{"files":']
)
def test_no_other_content_is_a_seal(folder, content):
  (folder / seals.NAME).write_bytes(content)
  assert 'seal.json is damaged' in seals.problem(folder)


def test_another_format_names_the_version(folder, monkeypatch):
  monkeypatch.setattr(seals, 'FORMAT', 2)
  assert 'its format is 1, this kdjax reads 2' in seals.problem(folder)


@pytest.mark.parametrize(
  'metrics', [{'x': 'high'}, {'x': None}, {'x': 10**400}, [1.0], 'abc', 3]
)
def test_metrics_are_numbers_by_name(folder, metrics):
  seals.amend(folder, metrics=metrics)
  assert seals.problem(folder) == (
    'the metrics in its seal.json are not numbers by name'
  )


def test_a_link_is_not_followed(folder, tmp_path_factory):
  outside = tmp_path_factory.mktemp('outside') / 'secret'
  outside.write_bytes(b'12345')
  (folder / 'a').unlink()
  (folder / 'a').symlink_to(outside)
  assert seals.problem(folder) == 'a is not a regular file'
