"""Encoder-decoder language models: T5 (v1.0, v1.1, LM-adapted), Flan, T0."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import api, layers
from kdjax.models import cache as cache_lib


@dataclasses.dataclass(frozen=True)
class Config(layers.Runtime):
  """The shape of an encoder-decoder, and how to run it."""

  vocab_size: int
  width: int
  head_size: int
  heads: int
  mlp_width: int
  encoder_layers: int
  decoder_layers: int
  activation: str = 'relu'
  gated_mlp: bool = False
  tied_head: bool = True
  scaled_head: bool = True
  relative_buckets: int = 32
  relative_max_distance: int = 128
  norm_eps: float = 1e-6
  dropout: float = 0.0
  start_id: int = 0


def relative_bucket(
  distance: jax.Array, *, bidirectional: bool, buckets: int, max_distance: int
) -> jax.Array:
  """Maps key-minus-query distances to T5's relative-position buckets.

  Half of the buckets are exact distances, the other half grow logarithmically
  up to `max_distance` (Raffel et al. 2020, section 2.1).
  """
  offset = jnp.zeros_like(distance)
  if bidirectional:
    buckets //= 2
    offset = jnp.where(distance > 0, buckets, 0)
    distance = jnp.abs(distance)
  else:
    distance = jnp.maximum(-distance, 0)
  exact = buckets // 2
  large = exact + (
    jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
    / math.log(max_distance / exact)
    * (buckets - exact)
  ).astype(jnp.int32)
  large = jnp.minimum(large, buckets - 1)
  return offset + jnp.where(distance < exact, distance, large)


def _dense(features: int, std: float, dtype: Any, name=None) -> layers.Dense:
  return layers.Dense(
    features,
    use_bias=False,
    dtype=dtype,
    kernel_init=nn.initializers.normal(std),
    name=name,
  )


class RelativeBias(nn.Module):
  """A learned score per head and relative-position bucket."""

  config: Config
  bidirectional: bool

  @nn.compact
  def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns [1 or B, N, T, S] for positions [1 or B, T] and [S]."""
    c = self.config
    table = self.param(
      'embedding',
      nn.initializers.normal(c.width**-0.5),
      (c.relative_buckets, c.heads),
    )
    bucket = relative_bucket(
      keys - queries[..., None],
      bidirectional=self.bidirectional,
      buckets=c.relative_buckets,
      max_distance=c.relative_max_distance,
    )
    return jnp.moveaxis(jnp.asarray(table)[bucket], -1, -3)


class Attention(nn.Module):
  """Multi-head attention without biases or score scaling."""

  config: Config

  def setup(self):
    c = self.config
    inner = c.heads * c.head_size
    self.q = _dense(inner, (c.width * c.head_size) ** -0.5, c.dtype)
    self.k = _dense(inner, c.width**-0.5, c.dtype)
    self.v = _dense(inner, c.width**-0.5, c.dtype)
    self.o = _dense(c.width, inner**-0.5, c.dtype)
    self.drop = nn.Dropout(c.dropout, deterministic=False)

  def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns keys and values [B, N, S, H] of x [B, S, D]."""
    heads = self.config.heads
    return (
      layers.split_heads(self.k(x), heads),
      layers.split_heads(self.v(x), heads),
    )

  def __call__(self, x, keys, values, mask, bias=None, kind='plain'):
    queries = layers.split_heads(self.q(x), self.config.heads)
    out, weights = layers.attend(
      queries, keys, values, mask, bias=bias, dropout=self.drop, kind=kind
    )
    return self.o(layers.merge_heads(out)), weights


class MLP(nn.Module):
  """Two matrices with an activation between, or three where it is gated."""

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    act = layers.activation(c.activation)

    def wide(name):
      return _dense(c.mlp_width, c.width**-0.5, c.dtype, name)(x)

    h = act(wide('wi_0')) * wide('wi_1') if c.gated_mlp else act(wide('wi'))
    h = nn.Dropout(c.dropout, deterministic=False)(h)
    return _dense(c.width, c.mlp_width**-0.5, c.dtype, 'wo')(h)


class EncoderBlock(nn.Module):
  """Self-attention and MLP, each behind a norm and around a residual."""

  config: Config
  capture: tuple[str, ...]

  @nn.compact
  def __call__(self, x, cache, mask, bias):
    del cache  # an encoder keeps none
    c = self.config
    norm = functools.partial(layers.RMSNorm, c.norm_eps, c.dtype)
    drop = nn.Dropout(c.dropout, deterministic=False)
    attention = Attention(c, name='attention')
    h = norm(name='attention_norm')(x)
    kind = layers.choose_attention(c.attention, self.capture, dropout=c.dropout)
    h, weights = attention(h, *attention.keys_values(h), mask, bias, kind)
    x = x + drop(h)
    x = x + drop(MLP(c, name='mlp')(norm(name='mlp_norm')(x)))
    seen = {'hidden': x, 'attention': weights}
    return x, {k: seen[k] for k in self.capture}


class DecoderBlock(nn.Module):
  """Self-attention, cross-attention and MLP.

  Called with a cache it returns the cache with the new tokens in it, else what
  `capture` names.
  """

  config: Config
  capture: tuple[str, ...]

  @nn.compact
  def __call__(self, x, cache, index, mask, bias, memory, memory_mask):
    c = self.config
    norm = functools.partial(layers.RMSNorm, c.norm_eps, c.dtype)
    drop = nn.Dropout(c.dropout, deterministic=False)
    attention = Attention(c, name='attention')
    cross = Attention(c, name='cross_attention')
    kind = layers.choose_attention(
      c.attention, self.capture, dropout=c.dropout, decoding=cache is not None
    )

    h = norm(name='attention_norm')(x)
    keys, values = attention.keys_values(h)
    if cache is not None:
      keys = cache_lib.write(cache.keys, keys, index)
      values = cache_lib.write(cache.values, values, index)
    h, weights = attention(h, keys, values, mask, bias, kind)
    x = x + drop(h)

    if memory is None:
      cross_kv = cache.cross_keys, cache.cross_values
    else:
      cross_kv = cross.keys_values(memory)
    h = norm(name='cross_attention_norm')(x)
    h, cross_weights = cross(h, *cross_kv, memory_mask, kind=kind)
    x = x + drop(h)

    x = x + drop(MLP(c, name='mlp')(norm(name='mlp_norm')(x)))
    if cache is not None:
      return x, cache_lib.LayerCache(keys, values, *cross_kv)
    seen = {
      'hidden': x,
      'attention': weights,
      'cross_attention': cross_weights,
    }
    return x, {k: seen[k] for k in self.capture}


class Transformer(nn.Module):
  """The encoder and the decoder around one embedding table."""

  config: Config
  capture: tuple[str, ...] = ()

  def setup(self):
    c = self.config
    self.shared = layers.Embed(
      c.vocab_size,
      c.width,
      dtype=c.dtype,
      embedding_init=nn.initializers.normal(1.0),
    )
    stack = functools.partial(
      layers.Stack, scan=c.scan, remat=c.remat, remat_policy=c.remat_policy
    )
    self.encoder_bias = RelativeBias(c, bidirectional=True)
    self.decoder_bias = RelativeBias(c, bidirectional=False)
    encoder_capture = tuple(k for k in self.capture if k != 'cross_attention')
    self.encoder = stack(EncoderBlock, (c, encoder_capture), c.encoder_layers)
    self.decoder = stack(DecoderBlock, (c, self.capture), c.decoder_layers)
    self.encoder_norm = layers.RMSNorm(c.norm_eps, c.dtype)
    self.decoder_norm = layers.RMSNorm(c.norm_eps, c.dtype)
    self.drop = nn.Dropout(c.dropout, deterministic=False)
    if not c.tied_head:
      self.lm_head = self.param(
        'lm_head',
        nn.initializers.normal(c.width**-0.5),
        (c.width, c.vocab_size),
      )

  def encode(self, tokens: jax.Array, mask: jax.Array):
    """Returns the encoder's output [B, S, D] and its captured layers."""
    positions = jnp.arange(tokens.shape[1])
    bias = self.encoder_bias(positions[None], positions)
    # Ids that stand in padding may be out of range, and NaN * 0 is NaN.
    tokens = jnp.where(mask, tokens, 0)
    x = self.drop(self.shared(tokens))
    x, extras = self.encoder(x, None, mask[:, None, None, :], bias)
    return self.drop(self.encoder_norm(x)), extras

  def decode(self, tokens, memory, memory_mask, caches=None, index=0):
    """Returns hidden [B, N, D] of inputs [B, N], and caches or captures."""
    slots = cache_lib.query_slots(jnp.asarray(index), tokens.shape[1])
    capacity = tokens.shape[1]
    if caches is not None:
      capacity = jax.tree.leaves(caches)[0].shape[-2]
    keys = jnp.arange(capacity)
    mask = (keys <= slots[..., None])[:, None]
    bias = self.decoder_bias(slots, keys)
    x, extras = self.decoder(
      self.drop(self.shared(tokens)),
      caches,
      jnp.asarray(index),
      mask,
      bias,
      memory,
      memory_mask[:, None, None, :],
    )
    return self.drop(self.decoder_norm(x)), extras

  def __call__(self, tokens, mask, decoder_tokens):
    """Returns hidden [B, T, D] and the captured layers of both stacks."""
    memory, encoder = self.encode(tokens, mask)
    hidden, decoder = self.decode(decoder_tokens, memory, mask)
    return hidden, {'encoder': encoder, 'decoder': decoder}


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
  """An encoder-decoder as a `LanguageModel` (see `api`)."""

  config: Config
  num_tokens: int
  eos_ids: tuple[int, ...] = (1,)
  pad_id: int = 0
  hf_config: str = '{}'
  max_positions: None = None

  @property
  def vocab_size(self) -> int:
    return self.config.vocab_size

  def init(self, key: jax.Array) -> api.Params:
    """Returns freshly initialised parameters, as in Raffel et al. (2020)."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    mask = jnp.ones((1, 2), bool)
    module = self._module()
    return module.init(key, tokens, mask, tokens)['params']

  def init_to_copy(self, params: api.Params) -> api.Params:
    """Returns fresh parameters whose attention already finds its like.

    The cross-attention's queries start as its keys, so that a decoder state
    looks at encoder states like itself, and two encoder heads start out looking
    at the next and at the previous token. Copying from the prompt is then a
    linear map away; from T5's own initialisation a small model takes thousands
    of steps to find it.
    """
    c = self.config
    params = jax.tree.map(lambda x: x, params)  # a copy of the containers
    for block in params['decoder'].values():
      cross = block['cross_attention']
      cross['q'] = {'kernel': cross['k']['kernel'] * c.head_size**-0.5}
    table = params['encoder_bias']['embedding']
    after, before = relative_bucket(
      jnp.array([1, -1]),
      bidirectional=True,
      buckets=c.relative_buckets,
      max_distance=c.relative_max_distance,
    )
    table = table.at[after, 0].set(5.0).at[before, c.heads - 1].set(5.0)
    params['encoder_bias'] = {'embedding': table}
    return params

  def hidden_states(
    self, params, prompt, response_tokens, *, dropout_key=None, capture=()
  ):
    """See `api.LanguageModel.hidden_states`."""
    start = jnp.full_like(response_tokens[:, :1], self.config.start_id)
    inputs = jnp.concatenate([start, response_tokens[:, :-1]], 1)
    module = self._module(dropout_key, capture)
    rngs = {} if dropout_key is None else {'dropout': dropout_key}
    hidden, captured = module.apply(
      {'params': params}, prompt.tokens, prompt.mask, inputs, rngs=rngs
    )
    return (hidden, captured) if capture else hidden

  def output_head(self, params) -> api.Head:
    """Returns the output projection, T5 v1.0's scaled by D ** -0.5."""
    c = self.config
    tied = c.tied_head
    kernel = params['shared']['embedding'].T if tied else params['lm_head']
    scale = c.width**-0.5 if c.scaled_head else 1.0
    return api.Head(kernel, scale=scale, tied=tied)

  def head(self, params, hidden):
    """Returns float32 logits [..., V]."""
    return self.output_head(params).logits(hidden)

  def prefill(self, params, prompt, max_new_tokens):
    """Encodes the prompt and reads the decoder's start token."""
    c = self.config
    apply = functools.partial(self._module().apply, {'params': params})
    memory, _ = apply(prompt.tokens, prompt.mask, method='encode')
    batch = prompt.tokens.shape[0]
    caches = layers.empty_caches(
      c.decoder_layers,
      c.scan,
      # The start token's slot, and one a token.
      (batch, c.heads, 1 + max_new_tokens, c.head_size),
      c.dtype,
    )
    start = jnp.full((batch, 1), c.start_id, jnp.int32)
    hidden, caches = apply(start, memory, prompt.mask, caches, method='decode')
    state = cache_lib.DecodeState(caches, jnp.int32(1), prompt.mask, start=1)
    return self.head(params, hidden[:, 0]), state

  def decode(self, params, state, tokens):
    """Reads tokens [B, N]; returns logits [B, N, V] for what follows each."""
    hidden, caches = self._module().apply(
      {'params': params},
      tokens,
      None,
      state.prompt_mask,
      state.layers,
      state.index,
      method='decode',
    )
    index = state.index + tokens.shape[1]
    state = dataclasses.replace(state, layers=caches, index=index)
    return self.head(params, hidden), state

  def _module(self, dropout_key=None, capture=()) -> Transformer:
    config = self.config
    if dropout_key is None:
      config = layers.set_dropout(config, 0.0)
    return Transformer(config, capture)
