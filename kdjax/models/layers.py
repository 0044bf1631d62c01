"""The building blocks that the model families share."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import cache as cache_lib

Dtype = Any

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'silu': jax.nn.silu,
  'swish': jax.nn.silu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_new': lambda x: jax.nn.gelu(x, approximate=True),
  'gelu_pytorch_tanh': lambda x: jax.nn.gelu(x, approximate=True),
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the activation that Hugging Face configs call `name`."""
  if name not in ACTIVATIONS:
    raise ValueError(
      f'unknown activation {name!r}; known are {sorted(ACTIVATIONS)}'
    )
  return ACTIVATIONS[name]


class RMSNorm(nn.Module):
  """`x / rms(x) * scale`, in float32 inside; `1 + scale` with `unit_offset`."""

  eps: float
  dtype: Dtype = jnp.float32
  unit_offset: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.zeros if self.unit_offset else nn.initializers.ones
    scale = self.param('scale', init, (x.shape[-1],), jnp.float32)
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps)
    return (x * (1.0 + scale if self.unit_offset else scale)).astype(self.dtype)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
  """[B, T, heads * H] -> [B, heads, T, H]."""
  return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-3, -2)


def merge_heads(x: jax.Array) -> jax.Array:
  """[B, heads, T, H] -> [B, T, heads * H]."""
  x = x.swapaxes(-3, -2)
  return x.reshape(*x.shape[:-2], -1)


def attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  bias: jax.Array | None = None,
  scale: float = 1.0,
  softcap: float | None = None,
  dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> tuple[jax.Array, jax.Array]:
  """Softmax attention; query heads share key-value heads in groups of N / K.

  A query that may see nothing (an empty prompt) reads zeros, so that what
  stands in the padding never matters.

  Args:
    queries: [B, N, T, H].
    keys: [B, K, S, H].
    values: [B, K, S, H].
    mask: bool, broadcastable to [B, 1, T, S]; True where a query may look.
    bias: added to the scores, broadcastable to [B, N, T, S].
    scale: multiplies the scores.
    softcap: c in `c * tanh(scores / c)`.
    dropout: applied to the attention weights.

  Returns:
    the output [B, N, T, H] and the weights [B, N, T, S], before dropout.
  """
  batch, heads, length, size = queries.shape
  kv_heads = keys.shape[1]
  grouped = queries.reshape(batch, kv_heads, heads // kv_heads, length, size)
  scores = jnp.einsum(
    'bkgth,bksh->bkgts', grouped, keys, preferred_element_type=jnp.float32
  ).reshape(batch, heads, length, -1)
  scores = scores * scale
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if bias is not None:
    scores = scores + bias
  scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  weights = jnp.where(mask, jax.nn.softmax(scores), 0.0).astype(values.dtype)
  out = jnp.einsum(
    'bkgts,bksh->bkgth',
    dropout(weights).reshape(batch, kv_heads, heads // kv_heads, length, -1),
    values,
  )
  return out.reshape(batch, heads, length, size), weights


class Stack(nn.Module):
  """`length` blocks one after another: scanned (compiles fast) or unrolled.

  `block(*args)` is called as `(x, own, *shared)` and returns `(x, extras)`,
  where `own` is what each block has of its own, such as its cache. Unrolled,
  `own` and the extras are tuples; scanned, they are stacked along a leading
  axis. With `remat`, the backward pass recomputes each block.
  """

  block: type[nn.Module]
  args: tuple[Any, ...]
  length: int
  scan: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, own: Any, *shared: Any):
    block = nn.remat(self.block) if self.remat else self.block
    if self.scan:
      scanned = nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, *[nn.broadcast] * len(shared)),
        length=self.length,
      )
      return scanned(*self.args, name='layers')(x, own, *shared)
    extras = []
    for i in range(self.length):
      mine = None if own is None else own[i]
      x, extra = block(*self.args, name=f'layers_{i}')(x, mine, *shared)
      extras.append(extra)
    return x, tuple(extras)


def empty_caches(
  length: int, scan: bool, shape: tuple[int, ...], dtype: Dtype
) -> Any:
  """Returns `length` LayerCaches of zeros, keys and values [B, K, C, H]."""
  if scan:
    zeros = jnp.zeros((length, *shape), dtype)
    return cache_lib.LayerCache(zeros, zeros)
  zeros = jnp.zeros(shape, dtype)
  return tuple(cache_lib.LayerCache(zeros, zeros) for _ in range(length))


def set_dropout(config: Any, rate: float) -> Any:
  """Returns a model config with every dropout rate replaced."""
  names = [f.name for f in dataclasses.fields(config)]
  rates = {name: rate for name in names if name.endswith('dropout')}
  return dataclasses.replace(config, **rates)
