"""What the student said at earlier steps: a ring of rows, and draws from it.

  remember: the rows that it has just answered take the oldest ones' place
  recall:   that, and then an entry a row for each draw from 'replay'

An entry keeps its prompts: the rows of such a draw are about these, not about
the batch's.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax import constraints, objective, types
from kdjax.step.rollout import of_task, row_ids
from kdjax.step.settings import MIXTURE, REPLAY, Metrics, Settings


@types.struct
class Memory:
  """The last N rows of a task that the student answered.

  Attributes:
    rows: [N, ...] prompts, the teacher's prompts where these differ, example
      ids, and `responses['student']`.
    steps: [N] int32, when each was sampled; -1 where there is none yet.
    position: [] int32, the row that is written next.
  """

  rows: types.Batch
  steps: jax.Array
  position: jax.Array


def memory(size: int, batch: types.Batch, length: int) -> Memory:
  """Returns a memory of `size` rows without any entry.

  Args:
    size: N.
    batch: of a task; the shapes of its prompts are read.
    length: T, of responses.
  """
  rows = jax.tree.map(
    lambda x: jnp.zeros((size, *x.shape[1:]), x.dtype), _asked(batch)
  )
  blank = types.Response(
    jnp.zeros((size, length), jnp.int32), jnp.zeros((size, length), bool)
  )
  return Memory(
    rows=dataclasses.replace(rows, responses={'student': blank}),
    steps=jnp.full(size, -1, jnp.int32),
    position=jnp.zeros((), jnp.int32),
  )


def _asked(batch: types.Batch) -> types.Batch:
  """Returns the prompts of rows and which examples they are."""
  return types.Batch(
    batch.prompt, batch.teacher_prompts, example_id=batch.example_id
  )


def remember(
  kept: Memory,
  batch: types.Batch,
  response: types.Response,
  answered: jax.Array,
  step: jax.Array,
) -> Memory:
  """Returns the memory with rows of a batch in place of its oldest ones.

  Args:
    kept: before.
    batch: of the task.
    response: [B, T] the student's.
    answered: [n] int32, the rows that it has answered, n <= N.
    step: [] int32.

  Raises:
    ValueError: they are more than the memory holds.
  """
  size, count = kept.steps.size, answered.size
  if count > size:
    raise ValueError(
      f'replay_size={size}, but the student answers {count} rows at a step: '
      'keep at least as many'
    )
  places = (kept.position + jnp.arange(count)) % size
  said = types.Response(response.tokens, response.mask)
  rows = dataclasses.replace(_asked(batch), responses={'student': said})
  return Memory(
    rows=jax.tree.map(
      lambda old, new: old.at[places].set(new[answered]), kept.rows, rows
    ),
    steps=kept.steps.at[places].set(step),
    position=(kept.position + count) % size,
  )


def recall(
  settings: Settings,
  memories: Sequence[Memory] | None,
  batch: types.Batch,
  responses: tuple[types.Response, ...],
  step: jax.Array,
  key: jax.Array,
  rows: int,
) -> tuple[tuple[Memory, ...] | None, tuple[types.Response, ...], Metrics]:
  """Remembers what the student has said, and fills in what draws replay.

  Each row takes an entry, all of them alike in probability. As long as there is
  none, its response stays empty and counts for nothing.

  Args:
    settings: of the step.
    memories: of each task in `Objective.replayed`; None where there is none.
    batch: prompts.
    responses: from `rollout`.
    step: [] int32.
    key: of the run.
    rows: how many rows the student has answered (static).

  Returns:
    The next memories; the responses of each draw, with the prompts that they
    answer where these aren't the batch's; metrics.

  Raises:
    ValueError: there are no memories, or they are too small.
  """
  goal, kept, views, metrics = settings.objective, [], {}, {}
  tasks = goal.replayed()
  if len(memories or ()) != len(tasks):
    raise ValueError(
      f'terms replay responses to the tasks {list(tasks)}, but the state holds '
      f'{len(memories or ())} memories: create it with `replay`, one per task'
    )
  if not tasks:
    return None, responses, {}
  draws, key = goal.draws(), jax.random.fold_in(key, step)
  order = jax.random.fold_in(key, MIXTURE)
  for i, task in enumerate(tasks):
    part = of_task(batch, task)
    said, answered = responses[len(draws) + i], _answered(part, order, rows)
    kept.append(remember(memories[i], part, said, answered, step))
    own = jax.random.fold_in(jax.random.fold_in(key, REPLAY), i)
    entries, steps, filled = choose(kept[-1], own, row_ids(part))
    age = count = 0
    for draw, response in zip(draws, responses):
      if draw.task == task and 'replay' in draw.sources():
        here = _replays(draw, step, order, steps.size, rows) & (filled > 0)
        views[draw.key] = _replace(response, part, entries, here)
        age += jnp.sum(jnp.where(here, step - steps, 0))
        count += jnp.sum(here)
    name = '/'.join(filter(None, ('replay', task)))
    metrics[f'{name}/age'] = age, count
    metrics[f'{name}/filled'] = filled, 1
  found = tuple(views.get(draw.key, x) for draw, x in zip(draws, responses))
  return tuple(kept), constraints.by_row(found), metrics


def _answered(batch: types.Batch, key: jax.Array, rows: int) -> jax.Array:
  """Returns the rows that the student has answered, [rows] int32.

  In the order of the examples: where one stands in its batch changes nothing.
  """
  ids = row_ids(batch)
  found = jnp.arange(ids.size)
  if rows < ids.size:
    found = objective.permutation(key, ids.size)[:rows]
  return found[jnp.argsort(ids[found])]


def choose(
  kept: Memory, key: jax.Array, ids: jax.Array
) -> tuple[types.Batch, jax.Array, jax.Array]:
  """Returns an entry for each row, when it was sampled, and how many there are.

  A row's random numbers are its own, whatever stands beside it in the batch.

  Args:
    kept: the memory.
    key: of the step and the task.
    ids: [B] int32, what tells the rows apart.
  """
  filled = jnp.sum(kept.steps >= 0)

  def one(row):
    own = jax.random.fold_in(key, row)
    return jax.random.randint(own, (), 0, jnp.maximum(filled, 1))

  chosen = jax.vmap(one)(ids)
  entries = jax.tree.map(lambda x: x[chosen], kept.rows)
  return constraints.by_row(entries), kept.steps[chosen], filled


def _replays(
  draw: objective.Draw, step: jax.Array, key: jax.Array, size: int, rows: int
) -> jax.Array:
  """Returns which rows of a draw are replayed, [B] bool."""
  sources = list(draw.mixture())
  if len(sources) == 1:
    return jnp.ones(size, bool)
  source = objective.assign(draw, step, key, size, rows)
  return source == sources.index('replay')


def _replace(
  response: types.Response,
  batch: types.Batch,
  entries: types.Batch,
  here: jax.Array,
) -> types.Response:
  """Puts entries, and their prompts, into the rows that are `here` [B]."""
  said = entries.responses['student']
  more = response.tokens.shape[1] - said.tokens.shape[1]
  said = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more))), said)

  def choose(new, old):
    return jnp.where(here.reshape(-1, *[1] * (new.ndim - 1)), new, old)

  tokens, mask = jax.tree.map(
    choose, (said.tokens, said.mask), (response.tokens, response.mask)
  )
  asked = jax.tree.map(choose, _asked(entries), _asked(batch))
  return types.Response(tokens, mask, asked=asked)
