"""A shard is as it was written, or says which of its files isn't."""

import json
import shutil

import numpy as np
import pytest

from kdjax import checksums, types
from kdjax.data import shards

K, SIZE = 2, 9


def make(directory, number=0, key='k', k=K):
  return shards.Shard(directory, number, 3, key, SIZE, k)


def said(number=0):
  return [
    shards.Response(f'{number}-{i}', 'p', np.full(i + 1, i), f'é{i}\u2028')
    for i in range(4)
  ]


def top(number=0):
  return [
    types.TopK(
      np.tile([3, 4 + number], (i + 1, 1)),
      np.full((i + 1, K), np.log(0.25)),
      np.full(i + 1, np.log(0.5)),
    )
    for i in range(4)
  ]


@pytest.fixture
def whole(tmp_path):
  for number in range(2):
    make(tmp_path, number).write(said(number), top(number))
  return make(tmp_path)


def test_what_is_written_is_read(whole):
  found = whole.read()
  assert [each._replace(tokens=None) for each in found] == [
    each._replace(tokens=None) for each in said()
  ]
  assert [each.tokens.tolist() for each in found] == [
    each.tokens.tolist() for each in said()
  ]
  record = whole.check()
  assert (record['responses'], record['tokens']) == (4, 10)
  assert abs(record['captured'] - 5) < 1e-6


def test_log_probabilities_that_are_nan_name_the_example(tmp_path):
  bad = top()
  bad[2].tail[1] = np.nan
  with pytest.raises(FloatingPointError, match="the example '0-2'"):
    make(tmp_path).write(said(), bad)
  assert not list(tmp_path.iterdir())


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def cut(path):
  path.write_bytes(path.read_bytes()[:-2])


def other(path):
  shutil.copy(str(path).replace('-00000-', '-00001-'), path)


@pytest.mark.parametrize('change', [flip, cut, other, lambda p: p.unlink()])
@pytest.mark.parametrize('file', ['texts', 'table', 'record'])
def test_damage_names_the_file_and_the_way_out(change, file, whole):
  path = getattr(whole, file)
  change(path)
  if file == 'record' and not path.exists():
    with pytest.raises(FileNotFoundError):
      whole.read()
    return
  with pytest.raises(ValueError, match='--mode=generate again') as error:
    whole.read()
  assert str(path) in str(error.value)
  whole.write(said(), top())
  assert len(whole.read()) == 4


def test_a_shard_in_anothers_place_is_noticed(whole):
  for path in whole.files:
    other(path)
  with pytest.raises(ValueError, match='is the record of shard 1'):
    whole.read()


def test_a_shard_of_another_run_is_told_from_a_damaged_one(whole):
  with pytest.raises(shards.OtherRunError, match='of another run'):
    make(whole.directory, key='other').read()


def test_tables_are_read_where_they_are_wanted(whole):
  flip(whole.table)
  assert len(whole.read(tables=False)) == 4


def test_a_shard_without_its_record_is_not_there(whole, monkeypatch):
  """As after a kill before the last of its files."""

  def killed(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(checksums, 'write_record', killed)
    with pytest.raises(KeyboardInterrupt):
      whole.write(said(), top())
  with pytest.raises(FileNotFoundError):
    whole.read()


ROW = {'id': 'a', 'prompt': 'p', 'tokens': [1, 2], 'text': 't'}


@pytest.mark.parametrize(
  'line',
  [
    '',
    '[]',
    '{"id": "a"',
    '{}',
    *(
      json.dumps({**ROW, key: value})
      for key, value in [
        ('id', 3),
        ('text', None),
        ('prompt', []),
        ('tokens', 'ab'),
        ('tokens', [1.5]),
        ('tokens', [True]),
        ('tokens', [-1]),
        ('tokens', [SIZE]),
        ('tokens', [2**70]),
        ('tokens', [[1]]),
        ('tokens', [1, [2]]),
        ('tokens', {'1': 2}),
        ('tokens', [float('nan')]),
      ]
    ),
    '{"id": "\\ud800" "tokens": ' + '[' * 5000,
  ],
)
def test_lines_that_are_no_responses_are_named(line, tmp_path):
  shard = make(tmp_path, k=0)
  known = checksums.write(shard.texts, [f'{line}\n'.encode()])
  record = {
    'shard': 0,
    'key': 'k',
    'responses': 1,
    'tokens': 2,
    'files': {'jsonl': known},
  }
  checksums.write_record(shard.record, record)
  with pytest.raises(ValueError, match=r'jsonl, line 1 .*--mode=generate'):
    shard.read()
