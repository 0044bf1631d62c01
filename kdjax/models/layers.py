"""The building blocks that the model families share."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import constraints
from kdjax.models import cache as cache_lib
from kdjax.models import kernels

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


class Embed(nn.Embed):
  """A table's rows [..., D] of tokens [...], split over the mesh by tokens."""

  def __call__(self, tokens: jax.Array) -> jax.Array:
    (table,) = self.promote_dtype(
      self.embedding, dtype=self.dtype, inexact=False
    )
    # Told neither, the compiler goes on with parts of D of all tokens where
    # fsdp splits it, in place of the whole D of each device's own.
    table = constraints.constrain(table, 'tensor')
    return constraints.by_row(jnp.take(table, tokens, axis=0))


class Dense(nn.Module):
  """`x @ kernel + bias`, whatever the kernel is stored as (see `kernels`)."""

  features: int
  use_bias: bool
  dtype: Dtype
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1], self.features
    kernel = self.param('kernel', self.kernel_init, shape)
    y = kernels.times(x.astype(self.dtype), kernel)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y = y + bias.astype(self.dtype)
    return y


def split_heads(x: jax.Array, heads: int) -> jax.Array:
  """[B, T, heads * H] -> [B, heads, T, H]."""
  size = x.shape[-1] // heads
  return x.reshape(*x.shape[:-1], heads, size).swapaxes(-3, -2)


def merge_heads(x: jax.Array) -> jax.Array:
  """[B, heads, T, H] -> [B, T, heads * H]."""
  x = x.swapaxes(-3, -2)
  return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


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
  kind: str = 'plain',
) -> tuple[jax.Array, jax.Array | None]:
  """Softmax attention; query heads share key-value heads in groups of N / K.

  A query that may see nothing (an empty prompt, of any width or none) reads
  zeros, so that what stands in the padding never matters.

  Args:
    queries: [B, N, T, H].
    keys: [B, K, S, H].
    values: [B, K, S, H].
    mask: bool, broadcastable to [B, 1, T, S]; True where a query may look.
    bias: added to the scores, broadcastable to [B, N, T, S].
    scale: multiplies the scores.
    softcap: c in `c * tanh(scores / c)`.
    dropout: applied to the attention weights.
    kind: see `choose_attention`; all but 'plain' ignore `softcap` and
      `dropout`.

  Returns:
    the output [B, N, T, H] and the weights [B, N, T, S], before dropout (None
    unless 'plain').
  """
  batch, heads, length, size = queries.shape
  kv_heads, memory = keys.shape[1:3]
  if not memory:  # which not every kernel takes
    nothing = jnp.zeros((batch, heads, length, 0), values.dtype)
    return jnp.zeros(queries.shape, values.dtype), nothing
  if kind != 'plain':
    out = _fused(queries, keys, values, mask, bias, scale, kind)
    return out, None
  grouped = queries.reshape(batch, kv_heads, heads // kv_heads, length, size)
  scores = jnp.einsum(
    'bkgth,bksh->bkgts', grouped, keys, preferred_element_type=jnp.float32
  ).reshape(batch, heads, length, memory)
  scores = scores * scale
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if bias is not None:
    scores = scores + bias
  scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  weights = jnp.where(mask, jax.nn.softmax(scores), 0.0).astype(values.dtype)
  out = jnp.einsum(
    'bkgts,bksh->bkgth',
    dropout(weights).reshape(*grouped.shape[:-1], memory),
    values,
  )
  return out.reshape(batch, heads, length, size), weights


def _fused(queries, keys, values, mask, bias, scale, kind):
  """Returns what `attend` returns, of one kernel that keeps no weights."""
  length, memory = queries.shape[2], keys.shape[2]
  sees, seen = mask.any(-1)[..., None], mask.any(-2)[..., None]
  # cuDNN adds a large negative number to hide a key; NaN would stay NaN.
  keys, values = (jnp.where(seen, x, 0) for x in (keys, values))
  if kind == 'cudnn':
    # Gradients want even lengths, and scores all of their last two axes.
    queries, keys, values = (_even(x, 2) for x in (queries, keys, values))
    mask = _even(_spread(mask, length, memory), 2, 3)
    if bias is not None:
      bias = _even(_spread(bias, length, memory), 2, 3).astype(queries.dtype)
  out = jax.nn.dot_product_attention(
    *(x.swapaxes(1, 2) for x in (queries, keys, values)),
    bias=bias,
    mask=mask,
    scale=scale,
    implementation=kind,
  )
  return jnp.where(sees, out[:, :length].swapaxes(1, 2), 0)


def _spread(x: jax.Array, length: int, memory: int) -> jax.Array:
  return jnp.broadcast_to(x, (*x.shape[:2], length, memory))


def _even(x: jax.Array, *axes: int) -> jax.Array:
  """Pads axes of an odd length with one zero (False)."""
  return jnp.pad(x, [(0, x.shape[i] % 2 * (i in axes)) for i in range(x.ndim)])


def choose_attention(
  wanted: str,
  capture: tuple[str, ...] = (),
  *,
  dropout: float = 0.0,
  softcap: float | None = None,
  decoding: bool = False,
) -> str:
  """Returns the `wanted` kind of attention, or 'plain' where that can't serve.

  'plain' is written out in `attend` and serves everywhere. 'xla' and 'cudnn'
  are those of `jax.nn.dot_product_attention`, and serve where the weights are
  wanted by nobody and all of them at once would be large.

  Args:
    wanted: 'plain', 'xla' or 'cudnn'.
    capture: what the model returns besides; the kernel has no weights to show.
    dropout: the rate at which weights are dropped, one by one.
    softcap: that of the scores; the kernel has none.
    decoding: whether a few queries read a cache. Their weights are small, the
      kernel would copy the cache, and tokens that are verified several at a
      time should get the numbers that they get one at a time.
  """
  captured = any(name.endswith('attention') for name in capture)
  serves = not (captured or dropout or softcap is not None or decoding)
  return wanted if serves else 'plain'


# What the backward pass finds kept of a layer that it recomputes: nothing, what
# every product of matrices gave, or the same but for attention's (whose weights
# grow with the square of the length).
REMAT_POLICIES = {
  'nothing': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_saveable,
  'dots_no_batch': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
  """How to run a model: the part of its config that all families share.

  Attributes:
    dtype: what matrices are multiplied in, whatever they are stored in.
    scan: scans over layers.
    remat: recomputes layers in the backward pass.
    remat_policy: what of a layer is kept all the same, in `REMAT_POLICIES`.
    attention: see `choose_attention`.
  """

  dtype: Dtype = jnp.float32
  scan: bool = False
  remat: bool = False
  remat_policy: str = 'nothing'
  attention: str = 'plain'

  def __post_init__(self):
    if self.remat_policy not in REMAT_POLICIES:
      raise ValueError(
        f'remat_policy={self.remat_policy!r}: expected one of '
        f'{tuple(REMAT_POLICIES)}'
      )
    if self.attention not in ('plain', 'xla', 'cudnn'):
      raise ValueError(
        f"attention={self.attention!r}: expected 'plain', 'xla' or 'cudnn'"
      )
    if self.attention != 'cudnn':
      return
    dtype, size = jnp.dtype(self.dtype), self.head_size
    if dtype not in (jnp.bfloat16, jnp.float16):
      raise ValueError(
        "attention='cudnn' computes in bfloat16 or float16, but dtype is "
        f"{dtype.name}: set dtype='bfloat16', or attention='xla'"
      )
    # Before Hopper at most 128; jax says so, as it knows the GPU.
    if size % 8 or size > 256:
      raise ValueError(
        "attention='cudnn' needs a head size that is a multiple of 8 and at "
        f"most 256, but it is {size}: set attention='xla'"
      )


class Stack(nn.Module):
  """`length` blocks one after another: scanned (compiles fast) or unrolled.

  `block(*args)` is called as `(x, own, *shared)` and returns `(x, extras)`,
  where `own` is what each block has of its own, such as its cache. Unrolled,
  `own` and the extras are tuples; scanned, they are stacked along a leading
  axis. With `remat`, the backward pass recomputes each block, but for what
  `remat_policy` keeps.
  """

  block: type[nn.Module]
  args: tuple[Any, ...]
  length: int
  scan: bool = False
  remat: bool = False
  remat_policy: str = 'nothing'

  @nn.compact
  def __call__(self, x: jax.Array, own: Any, *shared: Any):
    block = self.block
    if self.remat:
      block = nn.remat(block, policy=REMAT_POLICIES[self.remat_policy])
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
