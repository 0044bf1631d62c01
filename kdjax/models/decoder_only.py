"""Decoder-only language models: GPT-2, OPT, Llama, Mistral, Qwen, Gemma 2."""

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api, causal, layers
from kdjax.models import cache as cache_lib


def left_pad(prompt: types.Prompt, start_id: int) -> types.Prompt:
  """Rolls every row's last real token to the end; an empty row gets `start_id`.

  Padded tokens are overwritten too: whatever they were, it doesn't matter.
  """
  tokens, mask = prompt.tokens, prompt.mask.astype(bool)
  if not tokens.shape[1]:
    tokens, mask = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens, mask))
  width = tokens.shape[1]
  slots = jnp.arange(width)
  last = jnp.max(jnp.where(mask, slots, -1), 1, keepdims=True)
  source = (slots + last + 1) % width
  mask = jnp.take_along_axis(mask, source, 1)
  tokens = jnp.take_along_axis(tokens, source, 1)
  start = (last < 0) & (slots == width - 1)
  tokens = jnp.where(mask, tokens, jnp.where(start, start_id, 0))
  return types.Prompt(tokens, mask | start)


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
  """A decoder-only model as a `LanguageModel` (see `api`).

  Prompts may be padded on either side. An empty prompt is read as the token
  that begins texts (`start_id`: the config's bos_token_id, else its
  eos_token_id), so that it predicts the first token of plain text.
  """

  config: causal.Config
  num_tokens: int
  eos_ids: tuple[int, ...] = ()
  pad_id: int = 0
  hf_config: str = '{}'

  @property
  def vocab_size(self) -> int:
    return self.config.vocab_size

  @property
  def max_positions(self) -> int | None:
    return self.config.max_positions

  def init(self, key: jax.Array) -> api.Params:
    """Returns freshly initialised parameters."""
    tokens, mask = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)
    return self._module().init(key, tokens, mask)['params']

  def hidden_states(
    self, params, prompt, response_tokens, *, dropout_key=None, capture=()
  ):
    """See `api.LanguageModel.hidden_states`.

    What is captured stands under 'decoder', a dict a layer (stacked where the
    model scans): 'hidden' [B, T, D], in step with the result, and 'attention'
    [B, N, T, S + T - 1], over the prompt, its padding moved to the left, and
    then the response.
    """
    prompt = left_pad(prompt, self.config.start_id)
    first = prompt.tokens.shape[1] - 1
    self._check_length(response_tokens.shape[1])
    inputs = jnp.concatenate([prompt.tokens, response_tokens[:, :-1]], 1)
    rngs = {} if dropout_key is None else {'dropout': dropout_key}
    hidden, captured = self._module(dropout_key, capture).apply(
      {'params': params}, inputs, prompt.mask, first=first, rngs=rngs
    )
    captured = jax.tree.map(lambda x: x[..., first:, :], captured)
    return (hidden, {'decoder': captured}) if capture else hidden

  def output_head(self, params) -> api.Head:
    """Returns the output projection."""
    tied = self.config.tied_head
    kernel = params['embed']['embedding'].T if tied else params['lm_head']
    return api.Head(kernel, softcap=self.config.final_softcap, tied=tied)

  def head(self, params, hidden):
    """Returns float32 logits [..., V]."""
    return self.output_head(params).logits(hidden)

  def prefill(self, params, prompt, max_new_tokens):
    """Reads the prompt; returns logits [B, V] and room for the response."""
    c = self.config
    self._check_length(max_new_tokens)
    prompt = left_pad(prompt, c.start_id)
    batch, width = prompt.tokens.shape
    shape = batch, c.kv_heads, width, c.head_size
    caches = layers.empty_caches(c.layers, c.scan, shape, c.dtype)
    hidden, caches = self._module().apply(
      {'params': params}, prompt.tokens, prompt.mask, caches, first=width - 1
    )
    # Room is made afterwards: the prompt needn't look at empty slots.
    caches = jax.tree.map(
      lambda x: jnp.pad(
        x, [(0, 0)] * (x.ndim - 2) + [(0, max_new_tokens), (0, 0)]
      ),
      caches,
    )
    index = jnp.int32(width)
    state = cache_lib.DecodeState(caches, index, prompt.mask, start=width)
    return self.head(params, hidden[:, 0]), state

  def decode(self, params, state, tokens):
    """Reads tokens [B, N]; returns logits [B, N, V] for what follows each."""
    hidden, caches = self._module().apply(
      {'params': params}, tokens, state.prompt_mask, state.layers, state.index
    )
    index = state.index + tokens.shape[1]
    state = dataclasses.replace(state, layers=caches, index=index)
    return self.head(params, hidden), state

  def _check_length(self, length: int) -> None:
    if self.max_positions is not None and length > self.max_positions:
      raise ValueError(
        f'a response of {length} tokens does not fit the '
        f'{self.max_positions} learned positions of the model; shorten it.'
      )

  def _module(self, dropout_key=None, capture=()) -> causal.Transformer:
    config = self.config
    if dropout_key is None:
      config = layers.set_dropout(config, 0.0)
    return causal.Transformer(config, capture)
