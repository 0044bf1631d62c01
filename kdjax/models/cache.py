"""The memory of a decoder: keys and values, layer by layer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from kdjax import types


@types.struct
class LayerCache:
  """One layer's attention memory. C is the capacity in tokens.

  Keys and values are [B, K, C, H], the layout in which one new token reads
  them contiguously. `cross_keys` and `cross_values` ([B, K, S, H]) are those of
  the encoder's output, computed once; None in decoder-only models.
  """

  keys: jax.Array
  values: jax.Array
  cross_keys: jax.Array | None = None
  cross_values: jax.Array | None = None


@types.struct
class DecodeState:
  """What decoding carries from token to token.

  Attributes:
    layers: one LayerCache a layer; stacked along a leading axis L where the
      model scans over its layers.
    index: the slot that the next token takes: a scalar while all rows are in
      step, [B] after `rewind`.
    start: slots that were taken before the first response token (a static
      number: the prompt's width, or the decoder start token).
    prompt_mask: [B, S] bool, True on real prompt tokens.
  """

  layers: tuple[LayerCache, ...] | LayerCache
  index: jax.Array
  prompt_mask: jax.Array
  start: int = types.static_field(default=0)

  def take(self, rows: jax.Array) -> 'DecodeState':
    """Re-gathers batch rows: row i becomes `rows[i]`."""
    axis = 1 if isinstance(self.layers, LayerCache) else 0
    return dataclasses.replace(
      self,
      layers=jax.tree.map(lambda x: jnp.take(x, rows, axis), self.layers),
      index=self.index[rows] if self.index.ndim else self.index,
      prompt_mask=self.prompt_mask[rows],
    )

  def narrow(self, length: int) -> 'DecodeState':
    """Drops the room past the first `length` response tokens."""

    def cut(layer):
      return dataclasses.replace(
        layer,
        keys=layer.keys[..., : self.start + length, :],
        values=layer.values[..., : self.start + length, :],
      )

    layers = jax.tree.map(
      cut, self.layers, is_leaf=lambda x: isinstance(x, LayerCache)
    )
    return dataclasses.replace(self, layers=layers)

  def rewind(self, lengths: jax.Array) -> 'DecodeState':
    """Keeps the first `lengths[b]` response tokens of every row.

    Slots beyond are overwritten by what is decoded next, and masked until then.
    """
    return dataclasses.replace(self, index=self.start + lengths)


def write(buffer: jax.Array, update: jax.Array, index: jax.Array) -> jax.Array:
  """Writes [B, K, N, H] into [B, K, C, H] from slot `index` (scalar or [B])."""
  update = update.astype(buffer.dtype)
  if index.ndim == 0:
    return jax.lax.dynamic_update_slice_in_dim(buffer, update, index, axis=2)
  put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
  return jax.vmap(put)(buffer, update, index)


def query_slots(index: jax.Array, length: int) -> jax.Array:
  """Returns the slots of `length` new tokens, [1, N] or [B, N]."""
  return jnp.atleast_1d(index)[:, None] + jnp.arange(length)
