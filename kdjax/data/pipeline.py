"""Batches of fixed shapes from materialised examples, by grain."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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
  rows: np.ndarray | None = None,
  prompt_padding: str = 'right',
  with_references: bool = False,
  max_teacher_prompt_tokens: int | None = None,
) -> grain.DatasetIterator:
  """Returns an endless iterator over shuffled batches.

  Each epoch is a permutation of all examples; batches go on over the ends of
  epochs. Order is a function of `seed` and position alone, and `get_state`
  returns no more than the position: it is the same in all processes, whatever
  rows they read, and serves another number of them.

  Args:
    examples: what to iterate over.
    batch_size: B, the rows of a batch, over all processes.
    seed: selects the order.
    max_prompt_tokens: S.
    max_response_tokens: T.
    pad_id: fills rows.
    rows: the positions within a batch that this process reads, or None for all;
      its batches hold no others.
    prompt_padding: 'right' or 'left'.
    with_references: puts the acceptable texts into the batches (host only).
    max_teacher_prompt_tokens: S of the teacher's prompts; else the student's.

  Raises:
    ValueError: too few examples for a batch, or one that doesn't fit.
  """
  assemble = _Assembler(
    examples,
    _Widths(
      max_prompt_tokens,
      max_response_tokens,
      max_teacher_prompt_tokens or max_prompt_tokens,
    ),
    pad_id,
    prompt_padding,
    with_references,
  )
  if not 0 < batch_size <= len(examples):
    raise ValueError(
      f'batch_size={batch_size}, but {examples.task}/{examples.split} has '
      f'{len(examples)} examples: set a batch size from 1 to that'
    )
  mine = slice(None) if rows is None else rows
  dataset = (
    grain.MapDataset.source(np.arange(len(examples)))
    .seed(seed)
    .shuffle()
    .repeat()
    # Endless: nothing remains. grain divides by 1 only where it rounds down.
    .batch(batch_size, drop_remainder=True, batch_fn=np.asarray)
    .map(lambda numbers: assemble(numbers[mine]))
  )
  # Rows are a gather away: threads would cost more than they hide.
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return iter(dataset.to_iter_dataset(options))


class Joint:
  """The main task's batches, with those of further tasks inside.

  An iterator like those it is made of: its state is theirs, by name.
  """

  def __init__(self, main: Any, others: Mapping[str, Any]):
    self._iterators = {'': main, **others}

  def __iter__(self) -> 'Joint':
    return self

  def __next__(self) -> types.Batch:
    batches = {name: next(each) for name, each in self._iterators.items()}
    return dataclasses.replace(batches.pop(''), tasks=batches)

  def get_state(self) -> dict[str, Any]:
    """Returns every iterator's position."""
    return {name: each.get_state() for name, each in self._iterators.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from a position."""
    for name, each in self._iterators.items():
      each.set_state(state[name])


class Ahead:
  """Batches, each with the one after it.

  An iterator like the one it is made of: its state is the position after the
  first of the two, so that what goes on from it misses none.
  """

  def __init__(self, iterator: Any):
    self._iterator = iterator
    self._position = iterator.get_state()
    self._following: types.Batch | None = None

  def __iter__(self) -> 'Ahead':
    return self

  def __next__(self) -> tuple[types.Batch, types.Batch]:
    batch = self._following
    if batch is None:
      batch = next(self._iterator)
    self._position = self._iterator.get_state()
    self._following = next(self._iterator)
    return batch, self._following

  def get_state(self) -> Any:
    """Returns the position after the last pair's first batch."""
    return self._position

  def set_state(self, state: Any) -> None:
    """Goes on from a position."""
    self._iterator.set_state(state)
    self._position, self._following = state, None


def eval_batches(
  examples: examples_lib.Examples,
  batch_size: int,
  *,
  max_prompt_tokens: int,
  max_response_tokens: int,
  pad_id: int,
  prompt_padding: str = 'right',
  max_teacher_prompt_tokens: int | None = None,
) -> Iterator[tuple[types.Batch, int]]:
  """Yields every example once, in order, as (batch, number of valid rows).

  The last batch is filled by repeating the last example. References come along.

  Raises:
    ValueError: an example doesn't fit.
  """
  assemble = _Assembler(
    examples,
    _Widths(
      max_prompt_tokens,
      max_response_tokens,
      max_teacher_prompt_tokens or max_prompt_tokens,
    ),
    pad_id,
    prompt_padding,
    with_references=True,
  )
  if batch_size < 1:
    raise ValueError(f'batch_size={batch_size}: expected at least 1')
  for start in range(0, len(examples), batch_size):
    rows = np.arange(start, start + batch_size)
    valid = int(np.sum(rows < len(examples)))
    yield assemble(np.minimum(rows, len(examples) - 1)), valid


class _Widths(NamedTuple):
  """Columns of a batch's arrays."""

  prompt: int
  response: int
  teacher_prompt: int


class _Assembler:
  """Example numbers [B] to a `types.Batch` with numpy leaves."""

  def __init__(
    self,
    examples: examples_lib.Examples,
    widths: _Widths,
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
        ('rejected', examples.rejected),
        ('teacher', examples.teacher),
      )
      if tokens is not None
    }
    _check_width('prompt', examples.prompts, widths.prompt)
    for tokens in examples.teacher_prompts:
      _check_width('teacher_prompt', tokens, widths.teacher_prompt)
    for tokens in self._responses.values():
      _check_width('response', tokens, widths.response)

  def __call__(self, rows: np.ndarray) -> types.Batch:
    examples, widths = self._examples, self._widths
    references = None
    if self._with_references:
      references = tuple(examples.references[int(i)] for i in rows)
    teacher_prompts = tuple(
      self._prompt(tokens, rows, widths.teacher_prompt)
      for tokens in examples.teacher_prompts
    )
    return types.Batch(
      prompt=self._prompt(examples.prompts, rows, widths.prompt),
      teacher_prompts=teacher_prompts or None,
      responses={
        name: self._response(name, tokens, rows)
        for name, tokens in self._responses.items()
      },
      example_id=rows.astype(np.int32),
      references=references,
    )

  def _response(
    self, name: str, tokens: examples_lib.Ragged, rows: np.ndarray
  ) -> types.Response:
    width, top = self._widths.response, None
    if name == 'teacher' and self._examples.teacher_logprobs is not None:
      top = self._examples.teacher_logprobs.pad(rows, width)
    return types.Response(*tokens.pad(rows, width, self._pad_id), teacher=top)

  def _prompt(
    self, tokens: examples_lib.Ragged, rows: np.ndarray, width: int
  ) -> types.Prompt:
    return types.Prompt(*tokens.pad(rows, width, self._pad_id, self._padding))


def _check_width(name: str, tokens: examples_lib.Ragged, width: int) -> None:
  longest = int(tokens.lengths.max(initial=0))
  if longest > width:
    raise ValueError(
      f'a {name.replace("_", " ")} has {longest} tokens, but '
      f'max_{name}_tokens={width}: load the examples with that limit'
    )
