"""Batches of fixed shapes from materialised examples, by grain."""

import math
from collections.abc import Iterator

import grain
import numpy as np

from kdjax import types
from kdjax.data import examples as examples_lib


def train_iterator(
  examples: examples_lib.Examples,
  batch_size: int,
  *,
  seed: int,
  max_prompt_tokens: int,
  max_response_tokens: int,
  pad_id: int,
  shard_index: int = 0,
  shard_count: int = 1,
  prompt_padding: str = 'right',
  with_references: bool = False,
) -> grain.DatasetIterator:
  """Returns an endless iterator over shuffled batches.

  Each epoch is a permutation of all examples, dealt to the shards, so that
  shards never share an example; where `shard_count` doesn't divide their number
  the epoch's last few are left out. Batches go on over the ends of epochs.
  Order is a function of `seed` and position alone, and `get_state` returns no
  more than the position.

  Args:
    examples: what to iterate over.
    batch_size: B, the rows of this shard's batches.
    seed: selects the order.
    max_prompt_tokens: S.
    max_response_tokens: T.
    pad_id: fills rows.
    shard_index: which part of the data this host reads.
    shard_count: the number of parts.
    prompt_padding: 'right' or 'left'.
    with_references: puts the acceptable texts into the batches (host only).

  Raises:
    ValueError: too few examples for a batch, or one that doesn't fit.
  """
  assemble = _Assembler(
    examples,
    (max_prompt_tokens, max_response_tokens),
    pad_id,
    prompt_padding,
    with_references,
  )
  _check_shard(shard_index, shard_count)
  share = len(examples) // shard_count
  if not 0 < batch_size <= share:
    raise ValueError(
      f'batch_size={batch_size}, but {examples.task}/{examples.split} has '
      f'{len(examples)} examples, {share} for each of {shard_count} shards: '
      'set a batch size from 1 to that'
    )
  dealt = slice(shard_index, share * shard_count, shard_count)
  dataset = (
    grain.MapDataset.source(np.arange(len(examples)))
    .seed(seed)
    .shuffle()
    .slice(dealt)
    .repeat()
    .batch(batch_size, batch_fn=np.asarray)
    .map(assemble)
  )
  # Rows are a gather away: threads would cost more than they hide.
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return iter(dataset.to_iter_dataset(options))


def eval_batches(
  examples: examples_lib.Examples,
  batch_size: int,
  *,
  max_prompt_tokens: int,
  max_response_tokens: int,
  pad_id: int,
  shard_index: int = 0,
  shard_count: int = 1,
  prompt_padding: str = 'right',
) -> Iterator[tuple[types.Batch, int]]:
  """Yields every example once, in order, as (batch, number of valid rows).

  The last batches are filled by repeating the last example, so that all have
  B rows and every shard has as many batches. References come along.

  Raises:
    ValueError: an example doesn't fit.
  """
  assemble = _Assembler(
    examples,
    (max_prompt_tokens, max_response_tokens),
    pad_id,
    prompt_padding,
    with_references=True,
  )
  _check_shard(shard_index, shard_count)
  if batch_size < 1:
    raise ValueError(f'batch_size={batch_size}: expected at least 1')
  stride = batch_size * shard_count
  for i in range(math.ceil(len(examples) / stride)):
    start = i * stride + shard_index * batch_size
    rows = np.arange(start, start + batch_size)
    valid = int(np.sum(rows < len(examples)))
    yield assemble(np.minimum(rows, len(examples) - 1)), valid


def _check_shard(index: int, count: int) -> None:
  if not 0 <= index < count:
    raise ValueError(f'shard_index={index}: expected 0 to {count - 1}')


class _Assembler:
  """Example numbers [B] to a `types.Batch` with numpy leaves."""

  def __init__(
    self,
    examples: examples_lib.Examples,
    widths: tuple[int, int],
    pad_id: int,
    prompt_padding: str,
    with_references: bool,
  ):
    if prompt_padding not in ('left', 'right'):
      raise ValueError(
        f'prompt_padding={prompt_padding!r}: expected left or right'
      )
    self._examples = examples
    self._widths = widths
    self._pad_id = pad_id
    self._padding = prompt_padding
    self._with_references = with_references
    self._responses = {
      name: tokens
      for name, tokens in (
        ('data', examples.responses),
        ('teacher', examples.teacher),
      )
      if tokens is not None
    }
    _check_width('prompt', examples.prompts, widths[0])
    for tokens in self._responses.values():
      _check_width('response', tokens, widths[1])

  def __call__(self, rows: np.ndarray) -> types.Batch:
    prompt = self._examples.prompts.pad(
      rows, self._widths[0], self._pad_id, self._padding
    )
    references = None
    if self._with_references:
      references = tuple(self._examples.references[int(i)] for i in rows)
    return types.Batch(
      prompt=types.Prompt(*prompt),
      responses={
        name: types.Response(*tokens.pad(rows, self._widths[1], self._pad_id))
        for name, tokens in self._responses.items()
      },
      example_id=rows.astype(np.int32),
      references=references,
    )


def _check_width(name: str, tokens: examples_lib.Ragged, width: int) -> None:
  longest = int(tokens.lengths.max(initial=0))
  if longest > width:
    raise ValueError(
      f'a {name} has {longest} tokens, but max_{name}_tokens={width}: load '
      'the examples with that limit'
    )
