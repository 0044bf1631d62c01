"""A tiny language model to enumerate, and checks that suites share."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from kdjax import types
from kdjax.models import api


@types.struct
class TabularState:
  """What the tabular model remembers.

  Attributes:
    prompt: [B] int32, the prompt's row of the table.
    tokens: [B, T] int32, the response so far.
    length: [B] int32, its length.
  """

  prompt: jax.Array
  tokens: jax.Array
  length: jax.Array

  def take(self, rows: jax.Array) -> 'TabularState':
    """Re-gathers batch rows: row i becomes `rows[i]`."""
    return jax.tree.map(lambda x: x[rows], self)

  def rewind(self, lengths: jax.Array) -> 'TabularState':
    """Keeps the first `lengths[b]` response tokens of every row."""
    return dataclasses.replace(self, length=lengths)

  def narrow(self, length: int) -> 'TabularState':
    """Drops the room past the first `length` response tokens."""
    return dataclasses.replace(self, tokens=self.tokens[:, :length])


@dataclasses.dataclass(frozen=True)
class TabularModel:
  """A `LanguageModel` whose hidden states are looked up in a random table.

  They depend on the prompt (its real tokens, in order) and on the last two
  tokens of the response, so that neither a shifted label, nor a beam with
  another's memory, nor a padded prompt goes unnoticed. Small enough that every
  response can be enumerated.
  """

  vocab_size: int = 4
  num_tokens: int = 4
  eos_ids: tuple[int, ...] = (1,)
  pad_id: int = 0
  max_positions: int | None = None
  width: int = 8
  prompts: int = 7

  def init(self, key: jax.Array, scale: float = 1.5) -> api.Params:
    """Returns random parameters; `scale` is the logits' standard deviation."""
    first, second = jax.random.split(key)
    # One row more than the vocabulary: before the first token there is none.
    shape = (self.prompts, self.vocab_size + 1, self.vocab_size + 1, self.width)
    return {
      'table': scale * jax.random.normal(first, shape),
      'kernel': jax.random.normal(second, (self.width, self.vocab_size))
      * self.width**-0.5,
    }

  def hidden_states(
    self,
    params: api.Params,
    prompt: types.Prompt,
    response_tokens: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
    capture: tuple[str, ...] = (),
  ) -> Any:
    """Returns hidden [B, T, D]; no dropout, no layers to capture."""
    del dropout_key
    lengths = jnp.arange(response_tokens.shape[1])[None]
    hidden = self._look_up(params, self._hash(prompt), response_tokens, lengths)
    return (hidden, dict.fromkeys(capture, ())) if capture else hidden

  def output_head(self, params: api.Params) -> api.Head:
    """Returns the output projection."""
    return api.Head(params['kernel'])

  def head(self, params: api.Params, hidden: jax.Array) -> jax.Array:
    """Returns float32 logits [..., V]."""
    return self.output_head(params).logits(hidden)

  def prefill(
    self, params: api.Params, prompt: types.Prompt, max_new_tokens: int
  ) -> tuple[jax.Array, TabularState]:
    """Returns the logits [B, V] for `response[:, 0]` and the state."""
    rows = self._hash(prompt)
    state = TabularState(
      prompt=rows,
      tokens=jnp.zeros((rows.size, max_new_tokens), jnp.int32),
      length=jnp.zeros_like(rows),
    )
    hidden = self._look_up(params, rows, state.tokens, state.length[:, None])
    return self.head(params, hidden)[:, 0], state

  def decode(
    self, params: api.Params, state: TabularState, tokens: jax.Array
  ) -> tuple[jax.Array, TabularState]:
    """Reads tokens [B, N]; returns logits [B, N, V] for what follows each."""
    tokens = jnp.asarray(tokens, jnp.int32)
    count = tokens.shape[1]
    slots = state.length[:, None] + jnp.arange(count)[None]
    rows = jnp.arange(tokens.shape[0])[:, None]
    state = TabularState(
      prompt=state.prompt,
      tokens=state.tokens.at[rows, slots].set(tokens, mode='drop'),
      length=state.length + count,
    )
    hidden = self._look_up(params, state.prompt, state.tokens, slots + 1)
    return self.head(params, hidden), state

  def _hash(self, prompt: types.Prompt) -> jax.Array:
    """Returns each prompt's row of the table, [B]: padding doesn't matter."""

    def read(row, column):
      token, real = column
      return jnp.where(real, (3 * row + token + 1) % self.prompts, row), None

    start = jnp.zeros(prompt.tokens.shape[0], jnp.int32)
    columns = jnp.asarray(prompt.tokens, jnp.int32).T, prompt.mask.T
    return jax.lax.scan(read, start, columns)[0]

  def _look_up(self, params, rows, tokens, lengths):
    """Returns the hidden state after the first `lengths` [B or 1, N] tokens."""
    lengths = jnp.broadcast_to(lengths, (rows.size, lengths.shape[1]))

    def back(steps):
      slots = jnp.maximum(lengths - steps, 0)
      token = jnp.take_along_axis(tokens, slots, axis=1, mode='clip')
      return jnp.where(lengths >= steps, token, self.vocab_size)

    return params['table'][rows[:, None], back(1), back(2)]


def tabular(
  key: jax.Array, *, scale: float = 1.5, **options: Any
) -> tuple[TabularModel, api.Params]:
  """Returns a tabular model and its parameters; `options` are its fields."""
  if 'vocab_size' in options:
    options = {'num_tokens': options['vocab_size'], **options}
  model = TabularModel(**options)
  return model, model.init(key, scale)


def responses(vocab_size: int, length: int) -> jax.Array:
  """Returns all V^T sequences of T tokens, [V^T, T] int32.

  >>> responses(2, 2).tolist()
  [[0, 0], [0, 1], [1, 0], [1, 1]]
  """
  every = itertools.product(range(vocab_size), repeat=length)
  return jnp.array(list(every), jnp.int32)


def assert_transforms_agree(
  function: Callable[..., Any], *args: jax.Array, rtol: float = 1e-5
) -> None:
  """Asserts that `function` gives the same eagerly, under jit and under vmap.

  Args:
    function: maps arrays with a leading batch axis to such arrays (any pytree
      of them), row by row.
    *args: its arguments.
    rtol: the relative (and absolute) tolerance.
  """
  with jax.disable_jit():
    eager = function(*args)

  def single(*rows):
    out = function(*[row[None] for row in rows])
    return jax.tree.map(lambda x: x[0], out)

  for name, other in (
    ('jit', jax.jit(function)(*args)),
    ('vmap', jax.vmap(single)(*args)),
  ):
    jax.tree.map(
      lambda x, y, name=name: np.testing.assert_allclose(
        x, y, rtol=rtol, atol=rtol, err_msg=f'{name} differs from eager'
      ),
      other,
      eager,
    )


def assert_gradient(
  function: Callable[[Any], jax.Array],
  point: Any,
  *,
  key: jax.Array,
  directions: int = 3,
  step: float = 1e-2,
  rtol: float = 1e-2,
) -> None:
  """Asserts that `jax.grad(function)` is what finite differences say.

  Compares <gradient, d> with (f(x + h d) - f(x - h d)) / 2h along random unit
  directions d. In float32 the quotient is good to about eps |f| / h + h^2: the
  default step makes that 1e-4 for values and third derivatives near 1.

  Args:
    function: maps a pytree of float arrays to a scalar.
    point: where.
    key: chooses the directions.
    directions: how many.
    step: h.
    rtol: tolerance, relative to the gradient's norm (or to 1, if greater).
  """
  flat, unravel = jax.flatten_util.ravel_pytree(point)
  value = jax.jit(lambda x: function(unravel(x)))
  gradient = jax.grad(value)(flat)
  scale = max(1.0, float(jnp.linalg.norm(gradient)))
  for direction in jax.random.normal(key, (directions, flat.size)):
    direction = direction / jnp.linalg.norm(direction)
    slope = value(flat + step * direction) - value(flat - step * direction)
    np.testing.assert_allclose(
      gradient @ direction, slope / (2 * step), rtol=0, atol=rtol * scale
    )
