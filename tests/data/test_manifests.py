"""A manifest says what a cache is, and what another one would be."""

import pytest

from kdjax import checksums
from kdjax.data import manifests

KEY = {
  'tokenizer': 'f',
  'vocabulary_size': 9,
  'task': 't',
  'split': 'train',
  'examples': 4,
  'ids': 'i',
  'prompts': 'p',
  'model': {'role': 'teacher'},
  'sampling': {'top_logprobs': 0},
  'shards': 2,
}


def make(directory, about=None, **changes):
  return manifests.Manifest(directory, {**KEY, **changes}, about or {})


def test_what_is_written_is_read(tmp_path):
  written = make(tmp_path, {'limit': 3})
  written.write()
  found = manifests.Manifest.read(tmp_path)
  assert found == written
  assert (found.role, found.k) == ('teacher', 0)
  names = [shard.texts.name for shard in found.shards()]
  assert names == [f'responses-0000{i}-of-00002.jsonl' for i in range(2)]


def test_every_field_of_the_key_is_in_the_shards_key(tmp_path):
  keys = {next(make(tmp_path).shards()).key}
  for name, value in KEY.items():
    other = value + 1 if isinstance(value, int) else 'other'
    if isinstance(value, dict):
      other = {**value, 'more': 1}
    changed = make(tmp_path, **{name: other})
    keys.add(next(changed.shards()).key)
    with pytest.raises(ValueError, match=rf'{name}(\.more)? \(there'):
      make(tmp_path).check_same(changed)
    with pytest.raises(ValueError, match=rf'{name}(\.more)? \(there'):
      changed.check_same(make(tmp_path))
  assert len(keys) == len(KEY) + 1
  # What is for people decides nothing.
  make(tmp_path).check_same(make(tmp_path, {'limit': 3}))


@pytest.mark.parametrize(
  'change',
  [
    {'shards': 0},
    {'shards': 5},
    {'shards': True},
    {'shards': 2.0},
    {'examples': 10**30},
    {'vocabulary_size': -1},
    {'sampling': {'top_logprobs': 10}},
    {'sampling': []},
    {'model': None},
    {'ids': 3},
  ],
)
def test_impossible_keys_are_refused(change, tmp_path):
  make(tmp_path, **change).write()
  with pytest.raises(ValueError, match='lacks what a manifest must say'):
    manifests.Manifest.read(tmp_path)


def test_other_formats_are_refused(tmp_path):
  checksums.write_record(tmp_path / manifests.NAME, {'format': 2})
  with pytest.raises(ValueError, match='has the format 2, but this kdjax read'):
    manifests.Manifest.read(tmp_path)
  (tmp_path / manifests.NAME).write_text('{"model": "m"}')
  with pytest.raises(ValueError, match='another version of kdjax'):
    manifests.Manifest.read(tmp_path)
