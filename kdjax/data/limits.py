"""Brings examples within the limits on their tokens."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kdjax.data import faults
from kdjax.data.examples import Examples, Ragged


def _parts(
  examples: Examples,
) -> Iterator[tuple[str, str, Ragged]]:
  """Yields what has a limit: its limit's name, a name for people, tokens."""
  yield 'prompt', 'prompts', examples.prompts
  for tokens in examples.teacher_prompts:
    yield 'teacher_prompt', 'teacher prompts', tokens
  if examples.responses is not None:
    yield 'response', 'responses', examples.responses
  if examples.rejected is not None:
    yield 'response', 'rejected responses', examples.rejected


def fit(
  loaded: Examples,
  limits: Mapping[str, int],
  on_long: str,
  tails: Sequence[Sequence[int]],
) -> Examples:
  """Brings examples within the limits on their tokens.

  An example is dropped whole: rows of all parts belong together.

  Args:
    loaded: the examples.
    limits: on 'prompt', 'teacher_prompt' and 'response'.
    on_long: what befalls longer examples: 'error', 'truncate' or 'drop'.
    tails: the ids at the end of prompts, then of every teacher prompt, that
      truncation keeps: they ask for the response.

  Raises:
    ValueError: an example is longer, none is left, or no room beside a tail.
  """
  long = np.zeros(len(loaded), bool)
  notes = []
  for name, people, tokens in _parts(loaded):
    over = tokens.lengths > limits[name]
    if over.any():
      long |= over
      notes.append(
        f'{over.sum()} of {len(loaded)} {people} are longer than '
        f'max_{name}_tokens={limits[name]} (the longest has '
        f'{tokens.lengths.max()})'
      )
  if not notes:
    return loaded
  what = f'{loaded.task}/{loaded.split}: ' + ' and '.join(notes)
  if on_long == 'error':
    raise ValueError(
      f"{what}. Raise the limit, or set on_long to 'truncate' or 'drop'"
    )
  faults.warn(f'{what}: on_long={on_long}')
  if on_long == 'truncate':
    return _truncate(loaded, limits, tails)
  if long.all():
    raise ValueError(f'{what}: none is left. Raise the limits')
  return loaded.take(np.flatnonzero(~long))


def _truncate(
  loaded: Examples, limits: Mapping[str, int], tails: Sequence[Sequence[int]]
) -> Examples:
  """Cuts whatever is longer than its limit."""

  def responses(tokens: Ragged | None) -> Ragged | None:
    return None if tokens is None else tokens.truncate(limits['response'])

  return dataclasses.replace(
    loaded,
    prompts=_truncate_prompts('prompt', loaded.prompts, limits, tails[0]),
    responses=responses(loaded.responses),
    rejected=responses(loaded.rejected),
    teacher_prompts=tuple(
      _truncate_prompts('teacher_prompt', tokens, limits, tail)
      for tokens, tail in zip(loaded.teacher_prompts, tails[1:])
    ),
  )


def _truncate_prompts(
  name: str, prompts: Ragged, limits: Mapping[str, int], tail: Sequence[int]
) -> Ragged:
  """Cuts prompts in front of their tail."""
  limit = limits[name]
  long = prompts.lengths > limit
  if not long.any():
    return prompts
  if limit <= len(tail):
    raise ValueError(
      f'max_{name}_tokens={limit} leaves no room beside the {len(tail)} tokens '
      'that end every prompt'
    )
  cut = prompts.truncate(limit)
  values = cut.values.copy()
  ends = cut.offsets[1:][long]
  for i, token in enumerate(tail):
    values[ends - len(tail) + i] = token
  return Ragged(values, cut.offsets)
