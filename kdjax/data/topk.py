"""Top-k log-probabilities on disk: one row per token, read where needed.

A row is `k` log-probabilities, the logarithm of the mass that they leave, and
`k` ids, of 16 bits where the vocabulary allows it: `6 k + 4` bytes a token, or
`8 k + 4`. A file is rows and nothing else; what it holds is said elsewhere.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from kdjax import types

# How far probabilities that float32 rounded may be above 1.
_ROUNDING = 1e-3


def row_type(k: int, vocabulary_size: int) -> np.dtype:
  """Returns the layout of a row.

  >>> row_type(8, 32_000).itemsize, row_type(8, 128_000).itemsize
  (52, 68)
  """
  number = '<u2' if vocabulary_size <= 2**16 else '<i4'
  fields = [('logprobs', '<f4', (k,)), ('tail', '<f4'), ('ids', number, (k,))]
  return np.dtype(fields)


def encode(top: types.TopK, vocabulary_size: int) -> np.ndarray:
  """Returns rows [N] of the top k of N tokens, [N, k]."""
  count, k = top.ids.shape
  rows = np.empty(count, row_type(k, vocabulary_size))
  rows['logprobs'], rows['tail'], rows['ids'] = top.logprobs, top.tail, top.ids
  return rows


def captured(rows: np.ndarray) -> float:
  """Returns the sum over tokens of the mass that the top k hold."""
  mass = -np.expm1(rows['tail'].astype(np.float64))
  return float(np.maximum(mass, 0.0).sum())


@dataclasses.dataclass(frozen=True)
class Rows:
  """The top k of every token of some responses, left on disk until used.

  Attributes:
    paths: the files.
    k: ids a token.
    vocabulary_size: V.
    file: [rows] which of the files holds a response.
    start: [rows] where in it the response starts.
    lengths: [rows] its tokens.
    tables: the files, mapped into memory.
  """

  paths: tuple[pathlib.Path, ...]
  k: int
  vocabulary_size: int
  file: np.ndarray
  start: np.ndarray
  lengths: np.ndarray
  tables: tuple[np.ndarray, ...]

  @classmethod
  def open(
    cls,
    paths: Sequence[pathlib.Path],
    k: int,
    vocabulary_size: int,
    file: np.ndarray,
    start: np.ndarray,
    lengths: np.ndarray,
  ) -> 'Rows':
    """Maps files into memory, which may be larger than it."""
    layout = row_type(k, vocabulary_size)
    tables = tuple(
      np.memmap(path, layout, 'r')
      if path.stat().st_size
      else np.empty(0, layout)
      for path in paths
    )
    return cls(tuple(paths), k, vocabulary_size, file, start, lengths, tables)

  def __len__(self) -> int:
    return len(self.file)

  def take(self, rows: np.ndarray) -> 'Rows':
    """Returns those of the chosen responses, in the given order."""
    return dataclasses.replace(
      self,
      file=self.file[rows],
      start=self.start[rows],
      lengths=self.lengths[rows],
    )

  def truncate(self, limit: int) -> 'Rows':
    """Returns those of at most the first `limit` tokens of every response."""
    return dataclasses.replace(self, lengths=np.minimum(self.lengths, limit))

  def pad(self, rows: np.ndarray, width: int) -> types.TopK:
    """Returns those of the chosen responses, [B, width, k].

    What pads them is the uniform distribution: finite whatever reads it.

    Raises:
      ValueError: a file holds what isn't a distribution.
    """
    shape, every = (len(rows), width), self.vocabulary_size
    ids = np.empty((*shape, self.k), np.int32)
    ids[:] = np.arange(self.k)
    logprobs = np.full(ids.shape, -np.log(every), np.float32)
    with np.errstate(divide='ignore'):
      tail = np.full(shape, np.log1p(-self.k / every), np.float32)
    for i, row in enumerate(rows):
      first, length = self.start[row], self.lengths[row]
      found = self.tables[self.file[row]][first : first + length]
      self._check(found, length, self.paths[self.file[row]])
      ids[i, :length] = found['ids']
      logprobs[i, :length] = found['logprobs']
      tail[i, :length] = found['tail']
    return types.TopK(ids, logprobs, tail)

  def _check(self, found: np.ndarray, length: int, path: pathlib.Path) -> None:
    ids = found['ids']
    # Written so that NaN is refused.
    if not (
      len(found) == length
      and (ids >= 0).all()
      and (ids < self.vocabulary_size).all()
      and (found['logprobs'] <= _ROUNDING).all()
      and (found['tail'] <= _ROUNDING).all()
    ):
      raise ValueError(
        f'{path} does not hold log-probabilities: delete it and run '
        '--mode=generate again, which makes no more than that file'
      )
