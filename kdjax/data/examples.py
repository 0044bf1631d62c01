"""A Task, materialised: ragged arrays of tokens and of texts."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kdjax.data import topk
from kdjax.data.faults import LeftOut


@dataclasses.dataclass(frozen=True)
class Ragged(Sequence):
  """Rows of different lengths, end to end.

  Attributes:
    values: [total], all rows after one another.
    offsets: [rows + 1] int64; row i is `values[offsets[i]:offsets[i + 1]]`.
  """

  values: np.ndarray
  offsets: np.ndarray

  @classmethod
  def from_rows(cls, rows: Iterable[Any], dtype: Any = np.int32) -> 'Ragged':
    """Joins rows.

    >>> Ragged.from_rows([[1, 2], [], [3]]).offsets.tolist()
    [0, 2, 2, 3]
    """
    rows = [np.asarray(row, dtype) for row in rows]
    values = np.concatenate(rows) if rows else np.zeros(0, dtype)
    return cls.from_lengths(values, [len(row) for row in rows])

  @classmethod
  def from_lengths(cls, values: np.ndarray, lengths: Any) -> 'Ragged':
    """Cuts `values` into rows of the given lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return cls(values, offsets)

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, index: int) -> np.ndarray:
    if not -len(self) <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    index %= len(self)
    return self.values[self.offsets[index] : self.offsets[index + 1]]

  @property
  def lengths(self) -> np.ndarray:
    """[rows] int64."""
    return np.diff(self.offsets)

  def columns(self) -> np.ndarray:
    """[total]: the position of every value in its row.

    >>> Ragged.from_rows([[7, 8], [9]]).columns().tolist()
    [0, 1, 0]
    """
    starts = np.repeat(self.offsets[:-1], self.lengths)
    return np.arange(len(self.values)) - starts

  def take(self, rows: np.ndarray) -> 'Ragged':
    """Returns the chosen rows, in the given order."""
    lengths = self.offsets[rows + 1] - self.offsets[rows]
    kept = Ragged.from_lengths(np.empty(lengths.sum(), np.int64), lengths)
    index = np.repeat(self.offsets[:-1][rows], lengths) + kept.columns()
    return Ragged(np.asarray(self.values[index]), kept.offsets)

  def truncate(self, limit: int) -> 'Ragged':
    """Returns at most the first `limit` values of every row.

    >>> Ragged.from_rows([[7, 8], [9]]).truncate(1).values.tolist()
    [7, 9]
    """
    values = self.values[self.columns() < limit]
    return Ragged.from_lengths(values, np.minimum(self.lengths, limit))

  def surround(self, prefix: Sequence[int], suffix: Sequence[int]) -> 'Ragged':
    """Returns every row between `prefix` and `suffix`.

    >>> Ragged.from_rows([[7, 8], []]).surround([0], [1]).values.tolist()
    [0, 7, 8, 1, 0, 1]
    """
    lengths = self.lengths + len(prefix) + len(suffix)
    values = np.empty(lengths.sum(), self.values.dtype)
    out = Ragged.from_lengths(values, lengths)
    starts = np.repeat(out.offsets[:-1], self.lengths)
    values[starts + len(prefix) + self.columns()] = self.values
    for i, value in enumerate(prefix):
      values[out.offsets[:-1] + i] = value
    for i, value in enumerate(suffix):
      values[out.offsets[1:] - len(suffix) + i] = value
    return out

  def pad(
    self, rows: np.ndarray, width: int, fill: int, side: str = 'right'
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens [B, width] and mask [B, width] of the chosen rows.

    >>> Ragged.from_rows([[7, 8], [9]]).pad(np.array([1]), 3, 0, 'left')[0]
    array([[0, 0, 9]], dtype=int32)

    Raises:
      ValueError: a row is longer than `width`.
    """
    starts = self.offsets[rows][:, None]
    lengths = self.offsets[rows + 1][:, None] - starts
    if lengths.size and lengths.max() > width:
      raise ValueError(f'a row of {lengths.max()} does not fit {width} columns')
    position = np.arange(width)[None, :]
    if side == 'left':
      position = position - (width - lengths)
    mask = (position >= 0) & (position < lengths)
    index = np.where(mask, starts + position, 0)
    values = self.values if len(self.values) else np.full(1, fill, np.int32)
    return np.where(mask, values[index], np.int32(fill)), mask


@dataclasses.dataclass(frozen=True)
class Texts(Sequence):
  """Strings as one array of bytes, which a cache can map into memory."""

  encoded: Ragged

  @classmethod
  def from_strings(cls, strings: Iterable[str]) -> 'Texts':
    encoded = [s.encode('utf-8', 'surrogatepass') for s in strings]
    values = np.frombuffer(b''.join(encoded), np.uint8)
    return cls(Ragged.from_lengths(values, [len(s) for s in encoded]))

  def __len__(self) -> int:
    return len(self.encoded)

  def __getitem__(self, index: int) -> str:
    return self.encoded[index].tobytes().decode('utf-8', 'surrogatepass')

  def take(self, rows: np.ndarray) -> 'Texts':
    return Texts(self.encoded.take(rows))


@dataclasses.dataclass(frozen=True)
class References(Sequence):
  """The acceptable texts of every example."""

  texts: Texts
  groups: Ragged

  @classmethod
  def from_lists(cls, lists: Sequence[Sequence[str]]) -> 'References':
    texts = Texts.from_strings(text for texts in lists for text in texts)
    index = np.arange(len(texts))
    return cls(texts, Ragged.from_lengths(index, [len(l) for l in lists]))

  def __len__(self) -> int:
    return len(self.groups)

  def __getitem__(self, index: int) -> tuple[str, ...]:
    return tuple(self.texts[int(i)] for i in self.groups[index])

  def take(self, rows: np.ndarray) -> 'References':
    return References(self.texts, self.groups.take(rows))


@dataclasses.dataclass(frozen=True)
class Examples:
  """A split of a task, tokenised.

  Attributes:
    task: name of the task.
    split: name of the split.
    vocabulary_fingerprint: `Vocabulary.fingerprint` of the tokens.
    ids: names of the examples, unique; they survive `limit` and dropping.
    inputs: prompts as text.
    references: the acceptable texts of each example; empty if unlabelled.
    prompts: prompts as tokens, with the model family's special ids.
    responses: gold responses as tokens, EOS included unless cut off, or None.
    rejected: dispreferred responses, likewise, or None. `responses` are then
      the preferred ones.
    teacher: teacher responses, likewise, or None; see
      `responses.attach_teacher`.
    teacher_prompts: what the teacher reads in place of `prompts`, one each
      template; empty where it reads those.
    teacher_logprobs: the top k of every token of `teacher`, or None.
    left_out: what the split held besides, and was bad.
  """

  task: str
  split: str
  vocabulary_fingerprint: str
  ids: Texts
  inputs: Texts
  references: References
  prompts: Ragged
  responses: Ragged | None = None
  rejected: Ragged | None = None
  teacher: Ragged | None = None
  teacher_prompts: tuple[Ragged, ...] = ()
  teacher_logprobs: topk.Rows | None = None
  left_out: LeftOut = dataclasses.field(default_factory=LeftOut)

  def __len__(self) -> int:
    return len(self.ids)

  def digest(self) -> str:
    """Returns the sha256 of what is trained on, less a teacher's responses."""
    found = hashlib.sha256()
    given = self.prompts, self.responses, self.rejected, *self.teacher_prompts
    texts = self.references.texts.encoded, self.references.groups
    for part in (*given, *texts):
      found.update(b'none' if part is None else b'rows')
      if part is not None:
        found.update(np.ascontiguousarray(part.offsets, np.int64))
        # Texts are bytes; ids are of another type before they are cached.
        kind = np.uint8 if part.values.dtype == np.uint8 else np.int32
        found.update(np.ascontiguousarray(part.values, kind))
    return found.hexdigest()

  def take(self, rows: np.ndarray) -> 'Examples':
    """Returns the chosen examples, in the given order."""
    taken = {
      f.name: getattr(self, f.name).take(rows)
      for f in dataclasses.fields(self)
      if hasattr(getattr(self, f.name), 'take')
    }
    asked = tuple(prompts.take(rows) for prompts in self.teacher_prompts)
    return dataclasses.replace(self, **taken, teacher_prompts=asked)
