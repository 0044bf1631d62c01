"""A model's responses to a split, on disk: what `--mode=generate` writes.

A directory holds `manifest.json` (see `manifests`), which says what they are,
and shards (see `shards`). A run that was killed goes on with the shards that
are missing or damaged.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax import checksums, types
from kdjax.data import topk
from kdjax.data.examples import Examples, Ragged
from kdjax.data.manifests import NAME, Manifest, differences
from kdjax.data.shards import PATTERN, OtherRunError, Response, Shard

logger = logging.getLogger(__name__)


def read_by(role: str, examples: Examples) -> Ragged:
  """Returns the prompts that a model reads: a teacher may have its own."""
  theirs = role == 'teacher' and examples.teacher_prompts
  return examples.teacher_prompts[0] if theirs else examples.prompts


def parts(count: int, shards: int) -> list[np.ndarray]:
  """Returns the numbers of the examples of each shard, at least one a shard."""
  return np.array_split(np.arange(count), max(1, min(shards, count)))


class Writer:
  """Writes the responses of one model to all examples of a split.

  One process at a time: whoever opens one holds the directory's lock.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    examples: Examples,
    *,
    model: Mapping[str, Any],
    sampling: Mapping[str, Any],
    vocabulary_size: int,
    num_shards: int = 10,
    top_logprobs: int = 0,
    about: Mapping[str, Any] | None = None,
  ):
    """Begins a directory, or goes on with one.

    Args:
      directory: where to write.
      examples: what is answered.
      model: identifies the model; its 'role' is 'teacher' or 'student'.
      sampling: the settings that responses are sampled with.
      vocabulary_size: V, above every token.
      num_shards: into how many files; at most one an example.
      top_logprobs: k, of the log-probabilities beside every token; 0 for none.
      about: what people want to know beside these.

    Raises:
      OSError: the directory can't be written.
      ValueError: it holds responses that were made otherwise, or its manifest
        is damaged.
    """
    directory = pathlib.Path(directory)
    self._examples = examples
    self._reads = read_by(model['role'], examples)
    digests = (self._digest(i) for i in range(len(examples)))
    key = {
      'tokenizer': examples.vocabulary_fingerprint,
      'vocabulary_size': vocabulary_size,
      'task': examples.task,
      'split': examples.split,
      'examples': len(examples),
      'ids': _sha256(examples.ids),
      'prompts': _sha256(digests),
      'model': dict(model),
      'sampling': {**sampling, 'top_logprobs': top_logprobs},
      'shards': len(parts(len(examples), num_shards)),
    }
    manifest = Manifest(directory, key, dict(about or {}))
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(f'{PATTERN}.partial'):
      path.unlink()  # of a run that was killed
    if (directory / NAME).exists():
      Manifest.read(directory).check_same(manifest)
    else:
      manifest.write()
    self._shards = list(manifest.shards())
    manifest.check_strangers(self._shards)

  def pending(self) -> list[tuple[int, np.ndarray]]:
    """Returns the shards to be made, each with its example numbers.

    Raises:
      ValueError: a shard is of another run.
    """
    rows = parts(len(self._examples), len(self._shards))
    return [
      (shard.number, own)
      for shard, own in zip(self._shards, rows)
      if not self._whole(shard, own)
    ]

  def _whole(self, shard: Shard, rows: np.ndarray) -> bool:
    try:
      said = shard.read()
    except FileNotFoundError:
      return False
    except OtherRunError:
      raise
    except ValueError as error:
      logger.warning('%s. It is made again', error)
      return False
    names = [(self._examples.ids[i], self._digest(i)) for i in rows.tolist()]
    whole = names == [(each.id, each.prompt) for each in said]
    if not whole:
      logger.warning('%s answers other examples. It is made again', shard.texts)
    return whole

  def write(
    self,
    shard: int,
    tokens: Sequence[Sequence[int]],
    texts: Sequence[str],
    top: Sequence[types.TopK] = (),
  ) -> None:
    """Writes one shard: its responses in the order of its example numbers.

    Args:
      shard: its number.
      tokens: of every response.
      texts: likewise.
      top: likewise, [length, k], where log-probabilities were asked for.

    Raises:
      OSError: naming the file; the shard isn't there then.
      ValueError: not as many responses as the shard has examples.
    """
    rows = parts(len(self._examples), len(self._shards))[shard]
    lengths = {len(rows), len(tokens), len(texts)}
    if self._shards[shard].k:
      lengths.add(len(top))
    if len(lengths) > 1:
      raise ValueError(
        f'shard {shard} has {len(rows)} examples, but {len(tokens)} token '
        f'rows, {len(texts)} texts and {len(top)} tables of top k came'
      )
    said = [
      Response(self._examples.ids[i], self._digest(i), np.array(row), text)
      for i, row, text in zip(rows.tolist(), tokens, texts)
    ]
    self._shards[shard].write(said, top)

  def captured(self) -> float:
    """Returns the mean mass of the top k over all tokens, once all are there.

    Raises:
      FileNotFoundError: a shard is missing.
    """
    return _captured(self._shards)

  def _digest(self, row: int) -> str:
    return _digest(self._examples.inputs[row], self._reads[row])


def digest(directory: str) -> str:
  """Returns the sha256 of what decided over a directory's responses.

  Raises:
    FileNotFoundError: there are none.
    ValueError: its manifest is damaged, or of another version.
  """
  key = dict(Manifest.read(pathlib.Path(directory)).key)
  return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def attach_teacher(
  examples: Examples,
  directory: str | os.PathLike,
  *,
  max_response_tokens: int,
  vocabulary_size: int,
  model: Mapping[str, Any] | None = None,
  logprobs: bool = False,
  about: Callable[[], Mapping[str, Any]] = dict,
) -> Examples:
  """Returns the examples with the responses of a directory.

  Longer responses are cut to `max_response_tokens`, and so lose their EOS.

  Args:
    examples: all or some of those that were answered.
    directory: what a `Writer` filled.
    max_response_tokens: T.
    vocabulary_size: V.
    model: identifies the teacher that must have responded, where a teacher did;
      None accepts all.
    logprobs: also attaches the top-k log-probabilities.
    about: returns the same as the writer's, for messages.

  Raises:
    FileNotFoundError: there is no such directory, or shards are missing.
    ValueError: it was made with another tokenizer, model, task, split or
      prompts, lacks examples or log-probabilities, or is damaged.
  """
  manifest = Manifest.read(pathlib.Path(directory))
  expected = {
    'tokenizer': examples.vocabulary_fingerprint,
    'vocabulary_size': vocabulary_size,
    'task': examples.task,
    'split': examples.split,
  }
  _check(manifest, expected, model)
  if logprobs and not manifest.k:
    raise ValueError(
      f'{directory} has no log-probabilities beside its responses: write them '
      'with --config.generate.top_logprobs=8 or so into another directory, or '
      "leave out task.teacher_logprobs='cached'"
    )
  found = _Found(examples, manifest, about)
  shards = manifest.present()
  found.read(shards, tables=logprobs)
  attached = found.attached(max_response_tokens)
  if not logprobs:
    return attached
  logger.info(
    '%s: captured mass %.4f with k=%d',
    directory,
    _captured(shards),
    manifest.k,
  )
  rows = found.top(shards).truncate(max_response_tokens)
  return dataclasses.replace(attached, teacher_logprobs=rows)


def _check(
  manifest: Manifest,
  expected: Mapping[str, Any],
  model: Mapping[str, Any] | None,
) -> None:
  """Raises unless a cache is what a run expects."""
  wrong = differences(manifest.key, expected)
  if wrong:
    raise ValueError(
      f'the teacher responses in {manifest.directory} do not fit this run: '
      f'they differ in {", ".join(wrong)}. Generate them again, or name '
      'another directory'
    )
  if model is None or manifest.role != 'teacher':
    return
  wrong = differences(manifest.key['model'], model)
  if wrong:
    raise ValueError(
      f"another teacher than the config's gave the responses in "
      f'{manifest.directory}: they differ in {", ".join(wrong)}. Generate them '
      'again, name another directory, or set task.accept_other_teacher=True'
    )


class _Found:
  """The responses to some examples, as a directory's shards hold them."""

  def __init__(
    self,
    examples: Examples,
    manifest: Manifest,
    about: Callable[[], Mapping[str, Any]],
  ):
    self._examples = examples
    self._manifest = manifest
    self._about = about
    count = len(examples)
    self._tokens: list[np.ndarray | None] = [None] * count
    self._file = np.zeros(count, np.int32)
    self._start = np.zeros(count, np.int64)

  def read(self, shards: Sequence[Shard], tables: bool) -> None:
    """Reads all shards.

    Raises:
      ValueError: one is damaged, or they answer others than they should.
    """
    numbers = {name: i for i, name in enumerate(self._examples.ids)}
    reads = read_by(self._manifest.role, self._examples)
    names, prompts = hashlib.sha256(), hashlib.sha256()
    for shard in shards:
      start = 0
      for said in shard.read(tables):
        _add(names, said.id)
        _add(prompts, said.prompt)
        row = numbers.get(said.id)
        if row is not None:
          if said.prompt != _digest(self._examples.inputs[row], reads[row]):
            self._refuse(f'answers another prompt for the example {said.id!r}')
          self._tokens[row] = said.tokens
          self._file[row], self._start[row] = shard.number, start
        start += len(said.tokens)
    key = self._manifest.key
    if [names.hexdigest(), prompts.hexdigest()] != [key['ids'], key['prompts']]:
      raise ValueError(
        f'the shards in {self._manifest.directory} do not answer what its '
        f'{NAME} says: remove the directory and run --mode=generate again'
      )

  def attached(self, limit: int) -> Examples:
    """Returns the examples with at most `limit` tokens of each response."""
    missing = [i for i, row in enumerate(self._tokens) if row is None]
    if missing:
      self._refuse(
        f'has no response for {len(missing)} of {len(self._tokens)} examples, '
        f'{self._examples.ids[missing[0]]!r} among them'
      )
    tokens = Ragged.from_rows(self._tokens)
    long = int(np.sum(tokens.lengths > limit))
    if long:
      logger.warning(
        '%s: %d of %d responses cut to max_response_tokens=%d',
        self._manifest.directory,
        long,
        len(tokens),
        limit,
      )
    return dataclasses.replace(self._examples, teacher=tokens.truncate(limit))

  def top(self, shards: Sequence[Shard]) -> topk.Rows:
    """Returns the log-probabilities of all tokens, which stay on disk."""
    return topk.Rows.open(
      [shard.table for shard in shards],
      self._manifest.k,
      self._manifest.key['vocabulary_size'],
      self._file,
      self._start,
      np.array([len(row) for row in self._tokens]),
    )

  def _refuse(self, what: str) -> None:
    about = differences(self._manifest.about, self._about())
    more = f' They differ in {", ".join(about)}.' if about else ''
    raise ValueError(
      f'{self._manifest.directory} {what}.{more} Generate again with the same '
      'task arguments, limit, chat_template, teacher_prompts, lengths and '
      'on_long as training'
    )


def _digest(text: str, tokens: np.ndarray) -> str:
  """Identifies what a model was asked: the text, and what it read of it."""
  digest = hashlib.sha256(text.encode('utf-8', 'surrogatepass') + b'\0')
  digest.update(np.ascontiguousarray(tokens, '<i4').data)
  return digest.hexdigest()[:16]


def _sha256(names: Iterable[str]) -> str:
  digest = hashlib.sha256()
  for name in names:
    _add(digest, name)
  return digest.hexdigest()


def _add(digest: Any, name: str) -> None:
  encoded = name.encode('utf-8', 'surrogatepass')
  # With its length: names may hold whatever would part them.
  digest.update(f'{len(encoded)} '.encode() + encoded)


def _captured(shards: Iterable[Shard]) -> float:
  records = [checksums.read_record(shard.record) for shard in shards]
  tokens = sum(record['tokens'] for record in records)
  return sum(record['captured'] for record in records) / tokens
