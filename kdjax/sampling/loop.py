"""The loop of `generate`: blocks of tokens until every row is done.

A token costs what the arrays of its loop body are wide, so the loop is cut into
parts with arrays of their own sizes: rows that are done leave the batch, and
early tokens don't look at the slots of late ones. Each part compiles the body
once more, near 2 CPU seconds for 4 layers, so the parts are few.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api

# With responses a quarter of T long, of 32 rows, two halvings save 30% of the
# CPU time at T = 64 and 45% at 256. At 24 one saves 6 ms of 31, and is paid
# back after some 400 calls. Under 8 rows a token costs hardly less.
_COMPACT, _COMPACT_TWICE, _FEWEST_ROWS = 32, 64, 8
# Of the CPU time narrow caches save 5% at T = 256 and 14% at 1024.
_NARROW, _NARROW_TWICE = 256, 1024


@types.struct
class Loop:
  """What is carried from block to block, for R rows of the batch.

  Attributes:
    position: of the next token.
    rows: [R] int32, which rows of the batch these are.
    state: the model's.
    token: [R] int32, the last one chosen.
    done: [R] bool.
    columns: what was chosen, in arrays [T or more, R].
  """

  position: jax.Array
  rows: jax.Array
  state: api.DecodeState
  token: jax.Array
  done: jax.Array
  columns: types.Response

  def take(self, index: jax.Array) -> 'Loop':
    """Keeps rows `index` of these."""
    return Loop(
      position=self.position,
      rows=self.rows[index],
      state=self.state.take(index),
      token=self.token[index],
      done=self.done[index],
      columns=jax.tree.map(lambda x: x[:, index], self.columns),
    )


@dataclasses.dataclass(frozen=True)
class Parts:
  """How the loop is cut. Hashable.

  Attributes:
    block: tokens decoded between two looks at which rows are done.
    ends: positions before which parts end, a whole number of blocks from 1.
    sizes: the rows of the batch, and what they shrink to.
  """

  block: int
  ends: tuple[int, ...]
  sizes: tuple[int, ...]

  def halved(self) -> 'Parts':
    """The parts of the next size.

    Half of the rows with twice the slots is as large a cache: every second
    end will do.
    """
    return Parts(self.block, self.ends[::-2][::-1], self.sizes[1:])


# (rows [R], (state, token, done), position) -> the next carry, and a column.
Step = Callable[[jax.Array, Any, jax.Array], tuple[Any, types.Response]]


def cut(length: int, rows: int, block: int, compact: bool) -> Parts:
  """Chooses the parts of T = `length` tokens of `rows` rows.

  >>> cut(48, 32, block=8, compact=True)
  Parts(block=8, ends=(49,), sizes=(32, 16))
  """
  size = _block_size(length - 1, block)
  blocks = -(-(length - 1) // size)
  count = 1 + (length >= _NARROW) + 2 * (length >= _NARROW_TWICE)
  ends = {1 + size * -(-blocks * i // count) for i in range(1, count + 1)}
  sizes = [rows]
  for least in (_COMPACT, _COMPACT_TWICE):
    if compact and length >= least and sizes[-1] >= 2 * _FEWEST_ROWS:
      sizes.append(sizes[-1] // 2)
  return Parts(size, tuple(sorted(ends)), tuple(sizes))


def _block_size(steps: int, block: int) -> int:
  """Returns the size up to `block` that overruns `steps` least.

  63 steps make 7 blocks of 9 rather than 4 of 16. Sizes under half of `block`
  aren't tried: they would look for the end too often.
  """
  most = max(1, min(block, steps))
  return min(
    range((most + 1) // 2, most + 1), key=lambda size: (-steps % size, -size)
  )


def run(parts: Parts, step: Step, loop: Loop, start: int = 1) -> types.Response:
  """Returns the columns of the loop's rows, from 0 to the last end.

  Args:
    parts: from `cut`.
    step: chooses a token for each row.
    loop: before the first block.
    start: the position that it has got to where no row was done early.
  """
  rest = parts.halved()
  # A state of a user's own may be without `narrow`.
  ends = parts.ends if hasattr(loop.state, 'narrow') else parts.ends[-1:]
  for end in ends:
    whole = loop.state
    if end != ends[-1]:
      loop = dataclasses.replace(loop, state=whole.narrow(end - 1))
    # How often at most, for who counts a program's work (`plan.counting`).
    with jax.named_scope(f'times_{-(-max(0, end - start) // parts.block)}'):
      loop = _advance(parts.block, step, loop, end, max(rest.sizes, default=0))
    start = max(start, end)
    loop = dataclasses.replace(loop, state=_put_back(loop.state, whole))
  if not rest.sizes:
    return loop.columns
  # Those at work first, all in order. No row twice: they are written back.
  index = jnp.argsort(loop.done, stable=True)[: rest.sizes[0]]
  return jax.tree.map(
    lambda old, new: old.at[:, index].set(new),
    loop.columns,
    run(rest, step, loop.take(index), start),
  )


def _advance(block: int, step: Step, loop: Loop, end: int, least: int) -> Loop:
  """Runs blocks up to position `end`, while more than `least` rows go on.

  The last block may run past T. What it decodes there is dropped.
  """

  def unfinished(loop):
    return (loop.position < end) & (jnp.sum(~loop.done) > least)

  def run_block(loop):
    (state, token, done), new = jax.lax.scan(
      lambda carry, position: step(loop.rows, carry, position),
      (loop.state, loop.token, loop.done),
      loop.position + jnp.arange(block),
    )
    columns = jax.tree.map(
      lambda old, new: jax.lax.dynamic_update_slice_in_dim(
        old, new, loop.position, axis=0
      ),
      loop.columns,
      new,
    )
    return Loop(loop.position + block, loop.rows, state, token, done, columns)

  return jax.lax.while_loop(unfinished, run_block, loop)


def _put_back(part: Any, whole: Any) -> Any:
  """Returns `whole` with the narrower arrays of `part` at their beginning."""
  return jax.tree.map(
    lambda x, y: jax.lax.dynamic_update_slice(y, x, (0,) * y.ndim), part, whole
  )
