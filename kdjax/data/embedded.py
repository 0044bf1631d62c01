"""Tasks of the data sets that ship with kdjax."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kdjax.data import sources
from kdjax.data.faults import texts
from kdjax.data.local import plain
from kdjax.data.tasks import Example, Format, Task, register


def _source(
  name: str, key: str, label: str, part: str, fraction: float
) -> sources.Source:
  """An asset, or a part of its train split for semi-supervised learning.

  A row belongs to the labelled part where the hash of its name falls below
  `fraction`, so that a larger fraction holds the smaller ones.

  Args:
    name: of the asset.
    key: the column that names a row.
    label: the column that rows of the unlabelled part lack.
    part: 'all', 'labelled' or 'unlabelled', the rest.
    fraction: how much is labelled, about.
  """
  source = sources.embedded(name)
  if part not in ('all', 'labelled', 'unlabelled'):
    raise ValueError(
      f'{name}: part={part!r}, expected all, labelled or unlabelled'
    )
  if not 0 < fraction < 1:
    raise ValueError(
      f'{name}: fraction={fraction}, expected a number between 0 and 1'
    )
  if part == 'all':
    return source

  def rework(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    digest = hashlib.sha256(row[key].encode()).digest()
    labelled = int.from_bytes(digest[:8], 'big') < fraction * 2**64
    if part == 'labelled':
      return [row] if labelled else []
    return [] if labelled else [{**row, label: None}]

  return sources.Reworked(source, rework)


@register
def debsum(prefix: str = '', part: str = 'all', fraction: float = 0.1) -> Task:
  """Debian package descriptions to their one-line synopsis.

  Args:
    prefix: of the prompts.
    part: of the train split, as for `g2p`.
    fraction: how much of it counts as labelled.
  """
  ask = 'Write the one-line synopsis of this Debian package.\n\n'
  return Task(
    name='debsum',
    source=_source('debsum', 'id', 'summary', part, fraction),
    format=_synopsis(_package(prefix)),
    chat_format=_synopsis(_package(ask)),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=128,
    max_response_tokens=32,
  )


def _package(prefix: str) -> Callable[[Mapping[str, Any]], str]:
  return lambda row: f'{prefix}{row["id"]}: {row["document"]}'


def _synopsis(inputs: Callable[[Mapping[str, Any]], str]) -> Format:
  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    gold = row['summary']
    references = () if gold is None else (gold,)
    yield Example(row['id'], inputs(row), gold, references)

  return examples


@register
def debsum_text() -> Task:
  """Debian package descriptions as plain text: empty prompts."""
  return Task(
    name='debsum_text',
    source=sources.embedded('debsum'),
    format=lambda row, index: [plain(row['id'], row['document'])],
    metrics=('distinct1', 'distinct2'),
    prompted=False,
    max_prompt_tokens=4,
    max_response_tokens=128,
  )


@register
def debsum_windows(
  repeats: int = 1, first_words: int = 32, prefix: str = ''
) -> Task:
  """Copying: debsum's prompts, a short window of the document as target.

  A fresh model whose attention has first learned to copy learns to summarise
  many times faster. Windows have 8 to 24 words.

  Args:
    repeats: windows an example.
    first_words: windows lie within so many words, so that a truncated prompt
      still holds what is to be copied.
    prefix: of the prompts, as for `debsum`.
  """
  inputs = _package(prefix)

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    words = row['document'].split()[:first_words]
    for repeat in range(repeats):
      rng = np.random.default_rng([index, repeat])
      length = min(int(rng.integers(8, 25)), len(words))
      start = int(rng.integers(0, len(words) - length + 1))
      window = ' '.join(words[start : start + length])
      yield Example(f'{row["id"]}/{repeat}', inputs(row), window, (window,))

  return Task(
    name='debsum_windows',
    source=sources.embedded('debsum'),
    format=examples,
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=128,
    max_response_tokens=64,
  )


@register
def g2p(part: str = 'all', fraction: float = 0.1) -> Task:
  """Spelling to phonemes: CMU Pronouncing Dictionary.

  Args:
    part: of the train split: 'all', 'labelled', or the 'unlabelled' rest,
      without responses. Other splits stay whole and labelled.
    fraction: how much of the train split counts as labelled.
  """

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    sounds = ()
    if row['pronunciations'] is not None:
      sounds = texts(row, 'pronunciations')
    first = sounds[0] if sounds else None
    yield Example(row['word'], ' '.join(row['word']), first, sounds)

  return Task(
    name='g2p',
    source=_source('g2p', 'word', 'pronunciations', part, fraction),
    format=examples,
    metrics=('exact_match', 'phoneme_error_rate'),
    max_prompt_tokens=36,
    max_response_tokens=36,
  )
