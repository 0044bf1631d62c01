"""Tokens on disk are those that were written, or are refused."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from kdjax import checksums
from kdjax.data import faults, tokens
from tests.data import test_examples


def toy(**options):
  left_out = faults.LeftOut()
  left_out.add('bad UTF-8', 'line 3')
  return dataclasses.replace(test_examples.toy(**options), left_out=left_out)


def lists(ragged):
  return None if ragged is None else [row.tolist() for row in ragged]


def flat(examples):
  return (
    (examples.task, examples.split, examples.vocabulary_fingerprint),
    list(examples.ids),
    list(examples.inputs),
    list(examples.references),
    lists(examples.prompts),
    lists(examples.responses),
    lists(examples.rejected),
    [lists(prompts) for prompts in examples.teacher_prompts],
    str(examples.left_out),
  )


@pytest.mark.parametrize(
  'parts',
  [
    {},
    {'labelled': False},
    {'pairs': True, 'templates': 1},
    # Two digits: the order is that of numbers.
    {'templates': 11},
  ],
)
def test_write_then_read(parts, tmp_path):
  written = toy(**parts)
  tokens.write(tmp_path / 'cache', written)
  assert flat(tokens.read(tmp_path / 'cache')) == flat(written)
  # A second writer of the same content changes nothing and leaves nothing.
  tokens.write(tmp_path / 'cache', written)
  assert [p.name for p in tmp_path.iterdir()] == ['cache']


@pytest.fixture
def cache(tmp_path):
  tokens.write(tmp_path / 'cache', toy(pairs=True, templates=1))
  return tmp_path / 'cache'


def names():
  folder = [name for name, _ in tokens._arrays(toy(pairs=True, templates=1))]
  return [*folder, 'header.json']


@pytest.mark.parametrize('change', ['flip', 'cut', 'remove', 'empty'])
@pytest.mark.parametrize('name', names())
def test_damage_is_noticed_whatever_the_file(name, change, cache):
  path = cache / name
  content = path.read_bytes()
  if change == 'remove':
    path.unlink()
  else:
    flipped = bytearray(content)
    flipped[-3] ^= 1
    changes = {'flip': bytes(flipped), 'cut': content[:-2], 'empty': b''}
    path.write_bytes(changes[change])
  with pytest.raises((ValueError, OSError), match='cache'):
    tokens.read(cache)


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
  old, recent = tmp_path / 'a.partial', tmp_path / 'b.partial'
  for left in (old, recent):
    (left / 'examples').mkdir(parents=True)
  os.utime(old, (0, 0))
  tokens.write(tmp_path / 'cache', toy())
  assert sorted(p.name for p in tmp_path.iterdir()) == ['b.partial', 'cache']


def test_removing_is_for_all_to_do(cache):
  tokens.remove(cache)
  assert not list(cache.parent.iterdir())
  tokens.remove(cache)
  assert not list(cache.parent.iterdir())


def seal(cache, name, array):
  """Puts an array into a cache, with checksums that are right."""
  header = json.loads((cache / 'header.json').read_text())
  del header['sha256']
  with (cache / name).open('wb') as file:
    np.save(file, array, allow_pickle=array.dtype == object)
  header['files'][name] = {
    'bytes': (cache / name).stat().st_size,
    'sha256': checksums.sha256(cache / name),
  }
  checksums.write_record(cache / 'header.json', header)


@pytest.mark.parametrize(
  ('name', 'array'),
  [
    ('prompts.offsets', np.array([0, -5, 2])),
    ('prompts.offsets', np.array([0, 3, 2])),
    ('prompts.offsets', np.array([0, 2, 9])),
    ('prompts.offsets', np.array([1, 2, 2])),
    ('prompts.offsets', np.array([0, 2])),
    ('prompts.offsets', np.zeros((1, 3), int)),
    ('prompts.offsets', np.array([])),
    ('prompts.offsets', np.array(2)),
    ('prompts.values', np.array([1.0, 2.0])),
    ('prompts.values', np.array([1, {}], object)),
    ('groups.values', np.array([0, 7])),
    ('groups.values', np.array([-1, 0])),
  ],
)
def test_arrays_that_are_no_examples_are_refused(name, array, cache):
  seal(cache, f'{name}.npy', array)
  with pytest.raises(ValueError, match='cache'):
    tokens.read(cache)


def test_another_format_is_refused(cache):
  """Such as a list of names in place of the header."""
  (cache / 'header.json').write_text('["t", "s", "f"]')
  with pytest.raises(ValueError, match='header.json is damaged'):
    tokens.read(cache)
  shutil.rmtree(cache)
  with pytest.raises(FileNotFoundError):
    tokens.read(cache)
