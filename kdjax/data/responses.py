"""Teacher responses on disk: written shard by shard, read by example.

A directory holds `manifest.json` and `responses-00000-of-00010.jsonl`, one
object a line: the example's id, a digest of its prompt, the tokens through EOS
and the text. A shard appears under its name only once it is whole, so a run
that was killed goes on with the shards that are missing.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data import examples as examples_lib

logger = logging.getLogger(__name__)

MANIFEST = 'manifest.json'


class Writer:
  """Writes the responses of one model to all examples of a split."""

  def __init__(
    self,
    directory: str | os.PathLike,
    examples: examples_lib.Examples,
    *,
    model: str,
    sampling: Mapping[str, Any],
    num_shards: int = 10,
  ):
    """Begins a directory, or goes on with one.

    Args:
      directory: where to write.
      examples: what is answered.
      model: names the model, for the record.
      sampling: the settings that responses are sampled with.
      num_shards: into how many files; at most one an example.

    Raises:
      ValueError: the directory holds responses that were made otherwise.
    """
    self._directory = pathlib.Path(directory)
    self._examples = examples
    self._shards = max(1, min(num_shards, len(examples)))
    ids = ''.join(f'{name}\n' for name in examples.ids)
    manifest = {
      'task': examples.task,
      'split': examples.split,
      'vocabulary': examples.vocabulary_fingerprint,
      'num_examples': len(examples),
      'ids_sha256': hashlib.sha256(ids.encode()).hexdigest(),
      'num_shards': self._shards,
      'model': model,
      'sampling': dict(sampling),
    }
    self._directory.mkdir(parents=True, exist_ok=True)
    path = self._directory / MANIFEST
    if path.exists():
      _check_same(path, json.loads(json.dumps(manifest)))
    else:
      _write(path, json.dumps(manifest, indent=2) + '\n')

  def pending(self) -> list[tuple[int, np.ndarray]]:
    """Returns the shards to be made, each with its example numbers."""
    parts = np.array_split(np.arange(len(self._examples)), self._shards)
    return [
      (shard, rows)
      for shard, rows in enumerate(parts)
      if not (self._directory / _name(shard, self._shards)).exists()
    ]

  def write(
    self, shard: int, tokens: Sequence[Sequence[int]], texts: Sequence[str]
  ) -> None:
    """Writes one shard: its responses in the order of its example numbers.

    Raises:
      ValueError: not as many responses as the shard has examples.
    """
    parts = np.array_split(np.arange(len(self._examples)), self._shards)
    rows = parts[shard]
    if not len(rows) == len(tokens) == len(texts):
      raise ValueError(
        f'shard {shard} has {len(rows)} examples, but {len(tokens)} token '
        f'rows and {len(texts)} texts came'
      )
    lines = [
      json.dumps(
        {
          'id': self._examples.ids[int(i)],
          'prompt': _digest(self._examples.inputs[int(i)]),
          'tokens': [int(t) for t in row],
          'text': text,
        },
        ensure_ascii=False,
      )
      for i, row, text in zip(rows, tokens, texts)
    ]
    name = _name(shard, self._shards)
    _write(self._directory / name, ''.join(f'{line}\n' for line in lines))


def attach_teacher(
  examples: examples_lib.Examples,
  directory: str | os.PathLike,
  *,
  max_response_tokens: int,
) -> examples_lib.Examples:
  """Returns the examples with the teacher responses of a directory.

  Longer responses are cut to `max_response_tokens`, and so lose their EOS.

  Raises:
    FileNotFoundError: there is no such directory, or shards are missing.
    ValueError: it was made with another tokenizer, task, split or prompts, or
      lacks examples.
  """
  directory = pathlib.Path(directory)
  manifest = _manifest(directory)
  _check_manifest(directory, manifest, examples)
  records = {r['id']: r for r in _records(directory, manifest)}
  missing = [name for name in examples.ids if name not in records]
  if missing:
    raise ValueError(
      f'{directory} has no response for {len(missing)} of {len(examples)} '
      f'examples, {missing[0]!r} among them: generate again with the same '
      'task arguments, limit and on_long as training'
    )
  for name, inputs in zip(examples.ids, examples.inputs):
    if records[name]['prompt'] != _digest(inputs):
      raise ValueError(
        f'{directory} answers another prompt for the example {name!r}: '
        'generate again with the same task arguments and chat_template'
      )
  tokens = examples_lib.Ragged.from_rows(
    records[name]['tokens'] for name in examples.ids
  )
  long = int(np.sum(tokens.lengths > max_response_tokens))
  if long:
    logger.warning(
      '%s: %d of %d responses cut to max_response_tokens=%d',
      directory,
      long,
      len(examples),
      max_response_tokens,
    )
  return dataclasses.replace(
    examples, teacher=tokens.truncate(max_response_tokens)
  )


def _name(shard: int, shards: int) -> str:
  return f'responses-{shard:05d}-of-{shards:05d}.jsonl'


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]


def _write(path: pathlib.Path, text: str) -> None:
  """Writes a file that is whole or not there."""
  temporary = path.with_name(f'{path.name}.{os.getpid()}.partial')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


def _manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / MANIFEST
  if not path.is_file():
    raise FileNotFoundError(
      f'no teacher responses in {directory} (no {MANIFEST}): write them with '
      '--mode=generate'
    )
  return json.loads(path.read_text('utf-8'))


def _check_same(path: pathlib.Path, manifest: dict[str, Any]) -> None:
  """Raises unless the directory was begun with the same settings."""
  found = json.loads(path.read_text('utf-8'))
  keys = [k for k in manifest if found.get(k) != manifest[k]]
  if keys:
    differences = ', '.join(
      f'{k} (there {found.get(k)!r}, here {manifest[k]!r})' for k in keys
    )
    raise ValueError(
      f'{path.parent} holds responses of another run: they differ in '
      f'{differences}. Choose another directory, or remove that one'
    )


def _check_manifest(
  directory: pathlib.Path,
  manifest: dict[str, Any],
  examples: examples_lib.Examples,
) -> None:
  expected = {
    'vocabulary': examples.vocabulary_fingerprint,
    'task': examples.task,
    'split': examples.split,
  }
  for key, value in expected.items():
    if manifest.get(key) != value:
      raise ValueError(
        f'the teacher responses in {directory} were made with '
        f'{key} {manifest.get(key)!r}, but this run has {value!r}: generate '
        'them again, or name another directory'
      )


def _records(
  directory: pathlib.Path, manifest: dict[str, Any]
) -> Iterator[dict[str, Any]]:
  shards = manifest['num_shards']
  paths = [directory / _name(shard, shards) for shard in range(shards)]
  missing = [path for path in paths if not path.is_file()]
  if missing:
    raise FileNotFoundError(
      f'{len(missing)} of {shards} shards are missing in {directory}, '
      f'{missing[0].name} among them: run --mode=generate again, it goes on '
      'where it stopped'
    )
  for path in paths:
    with path.open(encoding='utf-8') as file:
      for line in file:
        yield json.loads(line)
