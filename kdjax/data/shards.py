"""One shard of a cache of responses: its texts, its top k, and its record.

`responses-00000-of-00010.jsonl` has one object per line: the example's id, a
digest of its prompt, the tokens through EOS and the text. Beside it may lie
`.topk` (see `topk`), and always `.json`, which is written last: what has no
record isn't there. The record holds sizes and checksums, and whose shard it is.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax import checksums, types
from kdjax.data import topk

PATTERN = 'responses-*'
_WAY_OUT = 'delete it and run --mode=generate again, which makes no more than'


class Response(NamedTuple):
  """What one example was answered.

  Attributes:
    id: the example's name.
    prompt: digest of what the model read.
    tokens: [length] int32.
    text: the tokens as text.
  """

  id: str
  prompt: str
  tokens: np.ndarray
  text: str


@dataclasses.dataclass(frozen=True)
class Shard:
  """One of a cache's shards, on disk or to come.

  Attributes:
    directory: of the cache.
    number: from 0.
    count: how many the cache has.
    key: the digest of all that decides over responses: whose shard it is.
    vocabulary_size: V.
    k: top log-probabilities a token; 0 for none.
  """

  directory: pathlib.Path
  number: int
  count: int
  key: str
  vocabulary_size: int
  k: int = 0

  @property
  def record(self) -> pathlib.Path:
    return self._path('.json')

  @property
  def texts(self) -> pathlib.Path:
    return self._path('.jsonl')

  @property
  def table(self) -> pathlib.Path:
    return self._path('.topk')

  @property
  def files(self) -> list[pathlib.Path]:
    """All that it has, the record first."""
    return [self.record, self.texts, *([self.table] if self.k else [])]

  def _path(self, ending: str) -> pathlib.Path:
    name = f'responses-{self.number:05d}-of-{self.count:05d}{ending}'
    return self.directory / name

  def write(
    self, said: Sequence[Response], top: Sequence[types.TopK] = ()
  ) -> None:
    """Writes it, `top` [length, k] a response.

    Raises:
      FloatingPointError: log-probabilities are NaN; names the example.
      OSError: naming the file; the shard isn't there then.
    """
    for each, known in zip(said, top):
      if np.isnan(known.logprobs).any() or np.isnan(known.tail).any():
        raise FloatingPointError(
          f'the model gives NaN for the log-probabilities of its response to '
          f'the example {each.id!r}: look at its weights'
        )
    # Of what stood here before, nothing counts from here on.
    self.record.unlink(missing_ok=True)
    found = {
      'jsonl': checksums.write(self.texts, (_line(each) for each in said))
    }
    record = {
      'shard': self.number,
      'key': self.key,
      'responses': len(said),
      'tokens': sum(len(each.tokens) for each in said),
      'files': found,
    }
    if self.k:
      rows = [topk.encode(each, self.vocabulary_size) for each in top]
      found['topk'] = checksums.write(
        self.table, (row.tobytes() for row in rows)
      )
      record['captured'] = sum(map(topk.captured, rows), 0.0)
    checksums.write_record(self.record, record)

  def check(self, tables: bool = True) -> dict[str, Any]:
    """Returns the record of a shard that is as it was written.

    Args:
      tables: also looks at the top k.

    Raises:
      FileNotFoundError: it was never written.
      ValueError: it is damaged, or of another run; names the file.
    """
    try:
      record = checksums.read_record(self.record)
    except FileNotFoundError:
      raise
    except (OSError, ValueError) as error:
      raise ValueError(f'{error}: {self._way_out}') from None
    if record.get('key') != self.key:
      raise OtherRunError(
        f'{self.record} is of another run than {self.directory}/manifest.json: '
        f'move responses-* that are not its own out of {self.directory}'
      )
    if record.get('shard') != self.number:
      raise ValueError(
        f'{self.record} is the record of shard {record.get("shard")!r:.40}: '
        f'{self._way_out}'
      )
    known = record.get('files')
    known = known if isinstance(known, dict) else {}
    endings = ['jsonl', *(['topk'] if self.k and tables else [])]
    for ending in endings:
      path = self._path(f'.{ending}')
      if reason := checksums.damage(path, known.get(ending)):
        raise ValueError(f'{path} is damaged ({reason}): {self._way_out}')
    return record

  @property
  def _way_out(self) -> str:
    return f'{_WAY_OUT} shard {self.number}'

  def read(self, tables: bool = True) -> list[Response]:
    """Reads the responses of a shard that is as it was written.

    Raises:
      FileNotFoundError: it was never written.
      ValueError: see `check`, or it doesn't hold responses.
    """
    record = self.check(tables)
    # Not `splitlines`: texts may hold U+2028 as it is.
    lines = self.texts.read_bytes().removesuffix(b'\n').split(b'\n')
    said = [self._parsed(i, line) for i, line in enumerate(lines, 1)]
    tokens = sum(len(each.tokens) for each in said)
    mass = record.get('captured') if self.k else 0.0
    # Written so that NaN is refused.
    if (
      [record.get('responses'), record.get('tokens')] != [len(said), tokens]
      or type(mass) is not float
      or not 0 <= mass <= 1.001 * tokens
    ):
      raise ValueError(
        f'{self.record} does not say what {self.texts.name} holds, {len(said)} '
        f'responses of {tokens} tokens: {self._way_out}'
      )
    if self.k and tables:
      width = topk.row_type(self.k, self.vocabulary_size).itemsize
      size = self.table.stat().st_size
      if size != tokens * width:
        raise ValueError(
          f'{self.table} has {size} bytes, but {tokens} tokens take '
          f'{tokens * width}: {self._way_out}'
        )
    return said

  def _parsed(self, number: int, line: bytes) -> Response:
    try:
      row = json.loads(line)
      said = Response(*(row[name] for name in Response._fields))
      tokens = np.asarray(said.tokens)
      whole = (
        all(isinstance(each, str) for each in (said.id, said.prompt, said.text))
        and tokens.ndim == 1
        and (tokens.dtype.kind == 'i' or not tokens.size)
        and (tokens >= 0).all()
        and (tokens < self.vocabulary_size).all()
      )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
      whole = False
    if not whole:
      raise ValueError(
        f'{self.texts}, line {number} is {line[:60]!r}: expected an id, the '
        f'digest of a prompt, ids below {self.vocabulary_size} and their text. '
        f'To fix it, {self._way_out}'
      )
    return said._replace(tokens=tokens.astype(np.int32))


class OtherRunError(ValueError):
  """A shard that was made with other settings."""


def _line(said: Response) -> bytes:
  row = {**said._asdict(), 'tokens': said.tokens.tolist()}
  try:
    text = json.dumps(row, ensure_ascii=False).encode()
  except UnicodeEncodeError:  # half of a surrogate pair
    text = json.dumps(row).encode()
  return text + b'\n'
