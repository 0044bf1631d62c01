"""A causal transformer, configurable enough for all decoder-only families."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import cache as cache_lib
from kdjax.models import layers, rotary


@dataclasses.dataclass(frozen=True)
class Config(layers.Runtime):
  """The shape of a decoder-only model, and how to run it.

  Attributes:
    norm: 'rms', 'rms_offset' (Gemma's `1 + scale`) or 'layer'.
    norm_order: where a branch f is normed. 'before': x + f(norm(x)); 'after':
      norm(x + f(x)); 'both': x + norm(f(norm(x))).
    qk_norm: RMS-norms every head's queries and keys.
    attention_scale: multiplies the attention scores.
    windows: how many tokens back each layer sees, its own included, None for
      all; empty where no layer has a window.
    frequencies: those of rotary embeddings, empty for learned positions.
    max_positions: rows of the learned positions' table, `position_offset`
      apart; None with rotary embeddings.
    embedding_width: that of the table where it isn't `width` (OPT-350M).
    embedding_scale: multiplies the embeddings.
    start_id: what an empty prompt holds.
    dropout: of what branches add to the residual.
    init_std: standard deviation of initial matrices.
    output_std: the same, of the matrices that end a branch.
  """

  vocab_size: int
  width: int
  head_size: int
  heads: int
  kv_heads: int
  mlp_width: int
  layers: int
  activation: str = 'silu'
  gated_mlp: bool = True
  norm: str = 'rms'
  norm_order: str = 'before'
  norm_eps: float = 1e-6
  final_norm: bool = True
  qkv_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  qk_norm: bool = False
  attention_scale: float = 1.0
  attention_softcap: float | None = None
  windows: tuple[int | None, ...] = ()
  frequencies: tuple[float, ...] = ()
  rotary_scale: float = 1.0
  max_positions: int | None = None
  position_offset: int = 0
  embedding_width: int | None = None
  embedding_scale: float = 1.0
  tied_head: bool = True
  final_softcap: float | None = None
  start_id: int = 0
  dropout: float = 0.0
  attention_dropout: float = 0.0
  embedding_dropout: float = 0.0
  init_std: float = 0.02
  output_std: float = 0.02


@types.struct
class View:
  """Where N tokens stand and what they may see, alike in all layers.

  Attributes:
    index: the cache slot of the first.
    mask: [B, 1, N, C] bool, True where a token may look.
    distance: [B, 1, N, C] int32, how many tokens back that is.
    rotary: cosines and sines [B, 1, N, H / 2], or None.
  """

  index: jax.Array
  mask: jax.Array
  distance: jax.Array
  rotary: tuple[jax.Array, jax.Array] | None


def _norm(config: Config, name: str) -> nn.Module:
  c = config
  if c.norm == 'layer':
    # The fast variance E[x^2] - E[x]^2 cancels where a mean is large.
    return nn.LayerNorm(
      epsilon=c.norm_eps, dtype=c.dtype, use_fast_variance=False, name=name
    )
  offset = c.norm == 'rms_offset'
  return layers.RMSNorm(c.norm_eps, c.dtype, unit_offset=offset, name=name)


def _dense(config: Config, features: int, bias: bool, std: float, name: str):
  return layers.Dense(
    features,
    use_bias=bias,
    dtype=config.dtype,
    kernel_init=nn.initializers.normal(std),
    name=name,
  )


class Attention(nn.Module):
  """Multi-head attention whose query heads may share key-value heads."""

  config: Config

  @nn.compact
  def __call__(self, x, cache, window, view: View, capture=()):
    """Returns [B, N, D], the keys and values [B, K, C, H], and the weights.

    The weights may be None unless `capture` names them.
    """
    c = self.config

    def heads(count, name, norm):
      inner = count * c.head_size
      h = _dense(c, inner, c.qkv_bias, c.init_std, name)(x)
      h = layers.split_heads(h, count)
      if norm and c.qk_norm:
        h = layers.RMSNorm(c.norm_eps, c.dtype, name=f'{name}_norm')(h)
      return h

    queries = heads(c.heads, 'q', norm=True)
    keys = heads(c.kv_heads, 'k', norm=True)
    values = heads(c.kv_heads, 'v', norm=False)
    if view.rotary is not None:
      queries = rotary.rotate(queries, *view.rotary)
      keys = rotary.rotate(keys, *view.rotary)
    if cache is not None:
      keys = cache_lib.write(cache.keys, keys, view.index)
      values = cache_lib.write(cache.values, values, view.index)
    mask = view.mask
    if window is not None:
      mask &= view.distance < window
    h, weights = layers.attend(
      queries,
      keys,
      values,
      mask,
      scale=c.attention_scale,
      softcap=c.attention_softcap,
      dropout=nn.Dropout(c.attention_dropout, deterministic=False),
      kind=layers.choose_attention(
        c.attention,
        capture,
        dropout=c.attention_dropout,
        softcap=c.attention_softcap,
        decoding=keys.shape[2] > queries.shape[2],
      ),
    )
    output = _dense(c, c.width, c.output_bias, c.output_std, 'o')
    return output(layers.merge_heads(h)), keys, values, weights


class MLP(nn.Module):
  """Two matrices with an activation between, or three where it is gated."""

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    act = layers.activation(c.activation)

    def wide(name):
      return _dense(c, c.mlp_width, c.mlp_bias, c.init_std, name)(x)

    h = act(wide('wi_0')) * wide('wi_1') if c.gated_mlp else act(wide('wi'))
    return _dense(c, c.width, c.mlp_bias, c.output_std, 'wo')(h)


class Block(nn.Module):
  """Attention and MLP around a residual.

  Called with a cache it returns the cache with the new tokens in it, else what
  `capture` names.
  """

  config: Config
  capture: tuple[str, ...]

  @nn.compact
  def __call__(self, x, layer, view: View):
    cache, window = layer
    c = self.config
    drop = nn.Dropout(c.dropout, deterministic=False)

    def enter(x, name):
      return x if c.norm_order == 'after' else _norm(c, f'{name}_norm')(x)

    def leave(x, h, name):
      if c.norm_order == 'both':
        h = _norm(c, f'{name}_post_norm')(h)
      x = x + drop(h)
      return _norm(c, f'{name}_norm')(x) if c.norm_order == 'after' else x

    attention = Attention(c, name='attention')
    h, keys, values, weights = attention(
      enter(x, 'attention'), cache, window, view, self.capture
    )
    x = leave(x, h, 'attention')
    x = leave(x, MLP(c, name='mlp')(enter(x, 'mlp')), 'mlp')
    if cache is not None:
      return x, cache_lib.LayerCache(keys, values)
    seen = {'hidden': x, 'attention': weights}
    return x, {k: seen[k] for k in self.capture}


class Transformer(nn.Module):
  """Embeddings, blocks and a norm."""

  config: Config
  capture: tuple[str, ...] = ()

  def setup(self):
    c = self.config
    init = nn.initializers.normal(c.init_std)
    embed = functools.partial(layers.Embed, dtype=c.dtype, embedding_init=init)
    self.embed = embed(c.vocab_size, c.embedding_width or c.width)
    if c.max_positions is not None:
      self.positions = embed(c.max_positions + c.position_offset, c.width)
    if c.embedding_width is not None:
      dense = functools.partial(_dense, c, bias=False, std=c.init_std)
      self.embed_in = dense(c.width, name='embed_in')
      self.embed_out = dense(c.embedding_width, name='embed_out')
    self.decoder = layers.Stack(
      Block,
      (c, self.capture),
      c.layers,
      scan=c.scan,
      remat=c.remat,
      remat_policy=c.remat_policy,
    )
    if c.final_norm:
      self.decoder_norm = _norm(c, 'decoder_norm')
    self.drop = nn.Dropout(c.embedding_dropout, deterministic=False)
    if not c.tied_head:
      shape = c.embedding_width or c.width, c.vocab_size
      self.lm_head = self.param('lm_head', init, shape)

  def __call__(self, tokens, prompt_mask, caches=None, index=0, first=0):
    """Returns hidden [B, N - first, D], and caches or captures.

    Args:
      tokens: [B, N].
      prompt_mask: [B, S]; the slots after S are the response's.
      caches: one LayerCache a layer, or None.
      index: the slot of the first token, a number or [B].
      first: the first token whose hidden state is wanted.
    """
    c = self.config
    capacity = tokens.shape[1]
    if caches is not None:
      capacity = jax.tree.leaves(caches)[0].shape[-2]
    view, positions = self._view(prompt_mask, index, tokens.shape[1], capacity)
    x = self.embed(tokens)
    if c.embedding_width is not None:
      x = self.embed_in(x)
    # Rounded to the compute dtype, as Gemma was trained.
    x = x * jnp.asarray(c.embedding_scale, c.dtype)
    if c.max_positions is not None:
      # What stands past the table's end can only be padding (or NaN).
      rows = jnp.minimum(positions, c.max_positions - 1) + c.position_offset
      x = x + self.positions(rows)
    x, extras = self.decoder(self.drop(x), self._layers(caches), view)
    x = x[:, first:]
    if c.final_norm:
      x = self.decoder_norm(x)
    if c.embedding_width is not None:
      x = self.embed_out(x)
    return x, extras

  def _view(self, prompt_mask, index, length, capacity):
    """Returns the View of `length` tokens from `index`, and their positions.

    Positions count tokens, not slots: padding takes none.
    """
    c = self.config
    index = jnp.asarray(index)
    width = prompt_mask.shape[1]
    tail = ((0, 0), (0, capacity - width))
    real = jnp.pad(prompt_mask, tail, constant_values=True)
    positions = jnp.maximum(jnp.cumsum(real, 1) - 1, 0)
    slots = cache_lib.query_slots(index, length)
    own = jnp.take_along_axis(positions, slots, 1, mode='clip')
    mask = real[:, None] & (jnp.arange(capacity) <= slots[..., None])
    distance = own[:, :, None] - positions[:, None]
    turn = None
    if c.frequencies:
      turn = rotary.angles(own, c.frequencies, c.rotary_scale)
    return View(index, mask[:, None], distance[:, None], turn), own

  def _layers(self, caches):
    """Pairs every layer's cache with its window, in Stack's form."""
    c = self.config
    if not c.scan:
      caches = caches or (None,) * c.layers
      return tuple(zip(caches, c.windows or (None,) * c.layers))
    if not c.windows:
      return caches, None
    everything = jnp.iinfo(jnp.int32).max
    return caches, jnp.array([w or everything for w in c.windows])
