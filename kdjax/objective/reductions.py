"""From per-token values to a term's (sum, count)."""

import jax
import jax.numpy as jnp

from kdjax import losses

NORMALIZERS = ('token', 'sequence', 'sum')


def reduce(
  values: jax.Array, mask: jax.Array, normalize: str
) -> tuple[jax.Array, jax.Array]:
  """Returns a term's (sum, count): values [B, T] (or [B], one a pair)."""
  weights = coefficients(mask, normalize)
  return losses.masked_sum(values, weights), count(mask, normalize)


def coefficients(mask: jax.Array, normalize: str) -> jax.Array:
  """Returns what each value counts in a term's sum, float32 like the mask."""
  weights = mask.astype(jnp.float32)
  if normalize == 'sequence' and mask.ndim > 1:
    weights /= jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1)
  return weights


def count(mask: jax.Array, normalize: str) -> jax.Array:
  """Returns a term's count on a whole batch, known before any loss."""
  if normalize == 'token' or mask.ndim == 1:
    return jnp.sum(mask)
  return jnp.sum(jnp.any(mask, -1))
