"""Rows of top-k log-probabilities: exact, small, and never what they aren't."""

import numpy as np
import pytest

from kdjax import types
from kdjax.data import topk


def table(lengths, k, size, seed=0):
  """Distributions at each token of some responses."""
  rng = np.random.default_rng(seed)
  found = []
  for length in lengths:
    logp = rng.normal(size=(length, size)) * 3
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    ids = np.argsort(-logp, axis=-1)
    top = np.take_along_axis(logp, ids, -1)
    with np.errstate(divide='ignore'):
      tail = np.log(np.exp(top[:, k:]).sum(-1))
    found.append(types.TopK(ids[:, :k], top[:, :k], tail))
  return found


def opened(path, tops, k, size):
  rows = [topk.encode(each, size) for each in tops]
  path.write_bytes(b''.join(row.tobytes() for row in rows))
  lengths = np.array([len(row) for row in rows])
  starts = np.cumsum(lengths) - lengths
  file = np.zeros(len(rows), np.int32)
  return topk.Rows.open([path], k, size, file, starts, lengths)


@pytest.mark.parametrize('size', [30, 70_000])
@pytest.mark.parametrize('k', [1, 4, 30])
def test_rows_come_back(k, size, tmp_path):
  tops = table([3, 0, 5, 1], k, size)
  rows = opened(tmp_path / 'table', tops, k, size)
  width = 8 if size > 2**16 else 6
  assert (tmp_path / 'table').stat().st_size == 9 * (k * width + 4)
  found = rows.pad(np.array([2, 0, 1]), 6)
  assert found.ids.dtype == np.int32 and found.tail.dtype == np.float32
  for i, row in enumerate((2, 0, 1)):
    n = len(tops[row].tail)
    np.testing.assert_array_equal(found.ids[i, :n], tops[row].ids)
    np.testing.assert_array_equal(
      found.logprobs[i, :n], tops[row].logprobs.astype(np.float32)
    )
    np.testing.assert_array_equal(
      found.tail[i, :n], tops[row].tail.astype(np.float32)
    )
  # What pads them is a distribution, too.
  mass = np.exp(found.logprobs).sum(-1) + np.exp(found.tail)
  np.testing.assert_allclose(mass, 1, rtol=1e-4)
  assert len(np.unique(found.ids[2, 0])) == k


def test_truncated_and_chosen_ones_are_those_of_their_tokens(tmp_path):
  tops = table([3, 4], 2, 9)
  rows = opened(tmp_path / 'table', tops, 2, 9)
  chosen = rows.take(np.array([1])).truncate(2)
  assert len(chosen) == 1 and chosen.lengths.tolist() == [2]
  found = chosen.pad(np.array([0]), 3)
  np.testing.assert_array_equal(found.ids[0, :2], tops[1].ids[:2])
  assert found.logprobs[0, 2, 0] == np.float32(-np.log(9))


def test_a_table_larger_than_is_read_stays_on_disk(tmp_path):
  k, size, count = 16, 50_000, 200_000
  width = topk.row_type(k, size).itemsize
  path = tmp_path / 'table'
  with path.open('wb') as file:
    file.truncate(count * width)
  file = np.zeros(count, np.int32)
  ones = np.ones(count, np.int64)
  rows = topk.Rows.open([path], k, size, file, np.arange(count), ones)
  assert isinstance(rows.tables[0], np.memmap)
  assert rows.pad(np.array([count - 1]), 1).ids.tolist() == [[[0] * k]]


@pytest.mark.parametrize(
  ('field', 'value'),
  [('ids', 9), ('logprobs', np.nan), ('logprobs', 1.0), ('tail', np.nan)],
)
def test_what_is_no_distribution_is_refused(field, value, tmp_path):
  rows = topk.encode(table([2], 3, 9)[0], 9)
  rows[field][1] = value
  path = tmp_path / 'table'
  path.write_bytes(rows.tobytes())
  numbers = np.zeros(1, np.int64)
  opened = topk.Rows.open([path], 3, 9, numbers, numbers, numbers + 2)
  with pytest.raises(ValueError, match='table does not hold log-prob'):
    opened.pad(numbers, 2)
