"""The protocol that every language model of kdjax fulfils.

Nothing above `models` knows whether a model is an encoder-decoder or a
decoder-only one, and nobody shifts labels by hand: `hidden[:, t]` predicts
`response[:, t]`.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import kernels

Params = Any

# What `hidden_states` can capture; cross-attention in encoder-decoders alone.
CAPTURES = ('hidden', 'attention', 'cross_attention')


Head = types.Head


class DecodeState(Protocol):
  """A decoder's memory. A pytree."""

  def take(self, rows: jax.Array) -> 'DecodeState':
    """Re-gathers batch rows (beams, groups): row i becomes `rows[i]`."""

  def rewind(self, lengths: jax.Array) -> 'DecodeState':
    """Keeps the first `lengths[b]` response tokens of every row."""

  # Optional: without it, all tokens are decoded at full capacity.
  def narrow(self, length: int) -> 'DecodeState':
    """Drops the room for all but the first `length` response tokens."""


class LanguageModel(Protocol):
  """A model's architecture: hashable and without arrays, a fit static argument.

  Attributes:
    vocab_size: V, the width of the head.
    num_tokens: ids at and above this are rows that pad the embedding table; no
      tokenizer yields them and no sampler may. At most `vocab_size`.
    eos_ids: ids that end a response.
    pad_id: id that fills the positions after it.
    max_positions: the most tokens of prompt and response together, or None
      where the architecture sets no limit.
  """

  vocab_size: int
  num_tokens: int
  eos_ids: tuple[int, ...]
  pad_id: int
  max_positions: int | None

  def hidden_states(
    self,
    params: Params,
    prompt: types.Prompt,
    response_tokens: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
    capture: tuple[str, ...] = (),
  ) -> Any:
    """Returns hidden [B, T, D], where `hidden[:, t]` predicts `response[:, t]`.

    With `capture`, a subset of `CAPTURES`, returns a pair: hidden and a dict of
    what was captured, layer by layer, embeddings apart.
    """

  def output_head(self, params: Params) -> Head:
    """Returns the output projection."""

  def head(self, params: Params, hidden: jax.Array) -> jax.Array:
    """Returns float32 logits [..., V]: the output head applied."""

  def prefill(
    self, params: Params, prompt: types.Prompt, max_new_tokens: int
  ) -> tuple[jax.Array, DecodeState]:
    """Returns logits [B, V] for `response[:, 0]`, and the prompt's state."""

  def decode(
    self, params: Params, state: DecodeState, tokens: jax.Array
  ) -> tuple[jax.Array, DecodeState]:
    """Reads tokens [B, N]; returns logits [B, N, V] for what follows each."""


def cast(
  model: LanguageModel, params: Params, dtype: Any
) -> tuple[LanguageModel, Params]:
  """Returns a model that computes in `dtype`, and its parameters in it.

  Matrices of eight bits stay what they are.

  Raises:
    TypeError: the model has no `config` with a dtype.
  """
  config = getattr(model, 'config', None)
  if not hasattr(config, 'dtype'):
    raise TypeError(
      f'{type(model).__name__} has no config.dtype to set to {dtype}; it '
      'computes in what it was made for'
    )

  config = dataclasses.replace(config, dtype=jnp.dtype(dtype))
  model = dataclasses.replace(model, config=config)
  return model, kernels.cast(params, dtype)


def logprobs(
  model: LanguageModel,
  params: Params,
  prompt: types.Prompt,
  response_tokens: jax.Array,
) -> jax.Array:
  """Returns log p(response[:, t] | prompt, response[:, :t]), [B, T] float32."""
  hidden = model.hidden_states(params, prompt, response_tokens)
  scores = jax.nn.log_softmax(model.head(params, hidden))
  return jnp.take_along_axis(scores, response_tokens[..., None], -1)[..., 0]
