"""Operations on the rows of a batch, inside jitted functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types


def scatter(
  response: types.Response, rows: jax.Array, size: int
) -> types.Response:
  """Puts the i-th response into row `rows[i]` of `size`; others are empty."""

  def put(x):
    return jnp.zeros((size, *x.shape[1:]), x.dtype).at[rows].set(x)

  return types.Response(put(response.tokens), put(response.mask))


def select(
  names: Sequence[str],
  responses: Mapping[str, types.Response],
  source: jax.Array,
) -> types.Response:
  """Takes each row from the response that `source` [B] points at.

  Shorter ones are filled up with masked tokens. A name without responses is
  passed over: its fraction is zero.
  """
  found = [(i, responses[n]) for i, n in enumerate(names) if n in responses]
  length = max(r.tokens.shape[1] for _, r in found)

  def widen(x):
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1])))

  tokens, mask = (widen(x) for x in (found[0][1].tokens, found[0][1].mask))
  for i, response in found[1:]:
    here = (source == i)[:, None]
    tokens = jnp.where(here, widen(response.tokens), tokens)
    mask = jnp.where(here, widen(response.mask), mask)
  return types.Response(tokens, mask)


def split(tree: Any, parts: int) -> Any:
  """Cuts arrays [R, ...] into M micro-batches [M, R / M, ...].

  Micro-batch m is every M-th row from m on: devices, which hold neighbouring
  rows, have an equal share of each.
  """
  return jax.tree.map(
    lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree
  )


def join(tree: Any) -> Any:
  """Undoes `split`: arrays [M, R / M, ...] to [R, ...]."""
  return jax.tree.map(
    lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree
  )
