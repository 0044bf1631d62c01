"""Reductions that masked tokens cannot touch."""

import jax
import jax.numpy as jnp


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Sum of the values that the mask keeps.

  sum_i mask_i values_i, where a masked value counts as 0 whatever it is (NaN
  and inf too) and has a gradient of 0. A mask of numbers weighs the values.

  >>> import jax.numpy as jnp
  >>> values = jnp.array([1.0, 2.0, jnp.nan])
  >>> print(masked_sum(values, jnp.array([True, True, False])))
  3.0

  Args:
    values: [...].
    mask: bool, or weights; broadcasts to the shape of `values`.

  Returns:
    A float32 scalar.

  Raises:
    ValueError: if the mask does not broadcast to the values.
  """
  weights = _weights(values, mask)
  kept = jnp.where(weights != 0, values.astype(jnp.float32), 0.0)
  return (kept * weights).sum()


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of the values that the mask keeps; 0 if it keeps none.

  sum_i mask_i values_i / sum_i mask_i.

  A mean over a part of a batch is not one of means over its parts: to
  accumulate, add up `masked_sum` and the mask's sum, and divide once.

  >>> import jax.numpy as jnp
  >>> values = jnp.array([1.0, 2.0, jnp.inf])
  >>> print(masked_mean(values, jnp.array([True, True, False])))
  1.5

  Args:
    values: [...].
    mask: bool, or weights; broadcasts to the shape of `values`.

  Returns:
    A float32 scalar.

  Raises:
    ValueError: if the mask does not broadcast to the values.
  """
  count = _weights(values, mask).sum()
  return masked_sum(values, mask) / jnp.where(count == 0, 1.0, count)


def _weights(values, mask):
  mask = jnp.asarray(mask)
  try:
    return jnp.broadcast_to(mask, values.shape).astype(jnp.float32)
  except ValueError as error:
    raise ValueError(
      f'mask of shape {mask.shape} does not broadcast to values of shape '
      f'{values.shape}: give one entry a token.'
    ) from error
