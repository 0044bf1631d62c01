"""What samplers draw with: valid settings, and random numbers row by row."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import constraints, types


def check(
  temperature: float | jax.Array,
  top_k: int,
  top_p: float,
  min_p: float,
  samples: int = 1,
  block: int = 1,
) -> None:
  """Raises ValueError for a setting out of its range."""
  for name, value, good, expected in (
    ('top_k', top_k, top_k >= 0, '0 (off) or more'),
    ('top_p', top_p, 0 < top_p <= 1, 'above 0 and at most 1 (off)'),
    ('min_p', min_p, 0 <= min_p <= 1, 'from 0 (off) to 1'),
    ('samples_per_prompt', samples, samples >= 1, '1 or more'),
    ('block', block, block >= 1, '1 or more'),
  ):
    if not good:
      raise ValueError(f'{name} is {value}; it must be {expected}.')
  # Reading a traced temperature is impossible, an array's costs a transfer.
  if not isinstance(temperature, jax.Array) and not (0 <= temperature < np.inf):
    raise ValueError(
      f'temperature is {temperature}; it must be 0 (greedy) or a positive '
      'number.'
    )


def row_ids(given: jax.Array | None, rows: int) -> jax.Array:
  """Returns the rows' ids [B], by default 0, 1, ..., B-1."""
  ids = jnp.arange(rows) if given is None else jnp.asarray(given)
  if ids.shape != (rows,):
    raise ValueError(
      f'row_ids has shape {ids.shape}; the prompt has {rows} rows, so '
      f'({rows},) was expected.'
    )
  return ids


def row_keys(key: jax.Array, row_ids: jax.Array, samples: int) -> jax.Array:
  """Returns the keys of all rows, [B * samples]."""
  if str(jax.random.key_impl(key)) != 'threefry2x32':
    # The hardware generators give other bits under vmap than alone, so a row's
    # sample would depend on its batch: they only seed threefry.
    bits = jax.random.bits(key, (2,), jnp.uint32)
    key = jax.random.wrap_key_data(bits, impl='threefry2x32')
  fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  keys = fold(key, row_ids)
  # As a token position never is, -j is free to number samples.
  numbers = -jnp.arange(1, samples, dtype=jnp.uint32)
  more = jax.vmap(fold, in_axes=(0, None))(keys, numbers)
  keys = jnp.concatenate([keys[:, None], more], axis=1)
  return keys.reshape(-1, *keys.shape[2:])


def uniforms(keys: jax.Array, length: int) -> jax.Array:
  """Returns two numbers in (0, 1) a token, [T, B, 2] float32.

  Drawn before the loop, whose body then holds no random number generator.
  """

  def draw(position, key):
    return jax.random.bits(jax.random.fold_in(key, position), (2,), jnp.uint32)

  over_rows = jax.vmap(draw, in_axes=(None, 0))
  bits = jax.vmap(over_rows, in_axes=(0, None))(jnp.arange(length), keys)
  # The middles of 2^23 equal intervals, all exact in float32: never 0 nor 1.
  return ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-23


def deal(logits: jax.Array) -> jax.Array:
  """Deals the rows of logits [R, V] to all devices of the mesh, if it can.

  Where an output head is split by its vocabulary, each device of a group holds
  a part of every row. Choosing tokens so takes a dozen collectives, one of
  which gathers half of the probabilities; dealt out, one all-to-all brings each
  device its share, and it chooses for R / n rows whatever the filters are.
  """
  # Said first, or the head might be gathered instead.
  parts = constraints.constrain(logits, types.BATCH_AXES, 'tensor')
  return constraints.constrain(parts, types.MESH_AXES)
