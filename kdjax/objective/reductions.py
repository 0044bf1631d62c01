"""From per-token values to a term's (sum, count)."""

import jax
import jax.numpy as jnp

from kdjax import losses

NORMALIZERS = ('token', 'sequence', 'sum')


def reduce(
  values: jax.Array, mask: jax.Array, normalize: str
) -> tuple[jax.Array, jax.Array]:
  """Returns a term's (sum, count): values [B, T] (or [B], one a pair)."""
  if values.ndim == 1:
    values, mask = values[:, None], mask[:, None]
  if normalize == 'token':
    return losses.masked_sum(values, mask), jnp.sum(mask)
  lengths = jnp.sum(mask, -1)
  sums = jax.vmap(losses.masked_sum)(values, mask)
  if normalize == 'sequence':
    sums = sums / jnp.maximum(lengths, 1)
  return jnp.sum(sums), jnp.sum(lengths > 0)


def count(mask: jax.Array, normalize: str) -> jax.Array:
  """Returns a term's count on a whole batch, known before any loss."""
  if normalize == 'token' or mask.ndim == 1:
    return jnp.sum(mask)
  return jnp.sum(jnp.any(mask, -1))
