"""Beam search, by the rules of transformers."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import types
from kdjax.models import api
from kdjax.sampling import rules as rules_lib

# Added to the score of what must not be chosen. Finite, as in transformers, so
# that scores under it keep an order among themselves.
_DEAD = -1e9


@types.struct
class _Beams:
  """K sequences a row, best first.

  Attributes:
    tokens: [B, K, T] int32.
    logprobs: [B, K, T] float32, of the tokens under the model.
    lengths: [B, K] int32.
    scores: [B, K] float32: sums of log-probabilities of running beams, the same
      over length ** length_penalty of finished ones.
    finished: [B, K] bool.
  """

  tokens: jax.Array
  logprobs: jax.Array
  lengths: jax.Array
  scores: jax.Array
  finished: jax.Array


def beam_search(
  model: api.LanguageModel,
  params: api.Params,
  prompt: Any,
  *,
  beams: int,
  max_new_tokens: int,
  length_penalty: float = 1.0,
  early_stopping: bool | Literal['never'] = False,
  eos_id: int | Sequence[int] | None = None,
  pad_id: int | None = None,
  min_new_tokens: int = 0,
  suppress_ids: Sequence[int] = (),
) -> tuple[types.Response, jax.Array]:
  """Searches for the response with the highest sum_t log p(y_t) / |y|^penalty.

  |y| counts the tokens of the response, its end included. One beam is greedy
  decoding. Every step ranks the `beams * max(2, 1 + number of EOS ids)` best
  continuations; those that end among the first `beams` are finished.

  Args:
    model: any language model; hashable.
    params: its parameters.
    prompt: what it reads, B rows.
    beams: K, hypotheses kept for each row.
    max_new_tokens: T. The response always has T positions.
    length_penalty: above 0 favours long responses, below 0 short ones.
    early_stopping: when a row with K finished hypotheses stops. True: at once.
      False: when the best running one, at its present length, scores under the
      worst of them. 'never': when no length could lift it over.
    eos_id: what ends a response, one id or several; default `model.eos_ids`.
    pad_id: fills positions after the end; default `model.pad_id`.
    min_new_tokens: suppresses end-of-sequence tokens before this many tokens.
    suppress_ids: ids never chosen. Nor are those from `model.num_tokens` on.

  Returns:
    The best Response of each row, [B, T], with `sampling_logprobs` 0, and its
    score [B].

  Raises:
    ValueError: for a setting out of its range.
  """
  rules = rules_lib.resolve(
    model,
    prompt,
    max_new_tokens=max_new_tokens,
    min_new_tokens=min_new_tokens,
    eos_id=eos_id,
    pad_id=pad_id,
    suppress_ids=suppress_ids,
  )
  if beams < 1:
    raise ValueError(f'beams is {beams}; it must be 1 or more.')
  if early_stopping not in (True, False, 'never'):
    raise ValueError(
      f'early_stopping is {early_stopping!r}; it must be True, False or '
      "'never'."
    )
  if _fan_out(rules) > model.vocab_size:
    raise ValueError(
      f'{len(rules.eos_ids)} end-of-sequence ids leave nothing to go on with '
      f'in a vocabulary of {model.vocab_size}. Name fewer as eos_id.'
    )
  return _search(
    model,
    params,
    prompt,
    rules,
    int(beams),
    float(length_penalty),
    # With one hypothesis there is nothing to compare it with.
    True if beams == 1 else early_stopping,
  )


def _fan_out(rules: rules_lib.Rules) -> int:
  """Continuations ranked per beam: enough that one of them doesn't end."""
  return max(2, 1 + len(rules.eos_ids))


@functools.partial(
  jax.jit,
  static_argnames=(
    'model',
    'rules',
    'beams',
    'length_penalty',
    'early_stopping',
  ),
)
def _search(
  model, params, prompt, rules, beams, length_penalty, early_stopping
):
  """The compiled part of `beam_search`."""
  # As in `generate`: reverse mode cannot pass a while loop.
  params = jax.lax.stop_gradient(params)
  length = rules.max_new_tokens
  # Nothing reads the last token.
  logits, state = model.prefill(params, prompt, max(1, length - 1))
  batch = logits.shape[0]
  rows = jnp.repeat(jnp.arange(batch), beams)
  advance = functools.partial(_advance, rules, length_penalty, early_stopping)

  def searching(loop):
    position, _, finished, improvable, _, _ = loop
    go_on = (position < length) & jnp.any(improvable)
    if early_stopping is True:
      go_on &= ~jnp.all(finished.finished)
    return go_on

  def step(loop):
    position, running, finished, improvable, parents, state = loop
    state = state.take(rows * beams + parents.ravel())
    last = _at(running.tokens, position - 1).reshape(-1, 1)
    logits, state = model.decode(params, state, last)
    beams_now = advance(logits[:, 0], position, running, finished, improvable)
    return position + 1, *beams_now, state

  nothing = _blank(rules, batch, beams)
  # K times the empty response; only the first may grow.
  empty = dataclasses.replace(nothing, scores=nothing.scores.at[:, 0].set(0.0))
  first = advance(logits[rows], 0, empty, nothing, jnp.ones((batch, 1), bool))
  loop = (jnp.int32(1), *first, state.take(rows))
  best = _gather(
    jax.lax.while_loop(searching, step, loop)[2], jnp.zeros((batch, 1), int)
  )
  return _response(rules, best), best.scores[:, 0]


def _blank(rules: rules_lib.Rules, batch: int, beams: int) -> _Beams:
  """Returns K dead beams a row."""
  shape = (batch, beams, rules.max_new_tokens)
  return _Beams(
    tokens=jnp.full(shape, rules.pad_id, jnp.int32),
    logprobs=jnp.zeros(shape, jnp.float32),
    lengths=jnp.zeros(shape[:2], jnp.int32),
    scores=jnp.full(shape[:2], _DEAD, jnp.float32),
    finished=jnp.zeros(shape[:2], bool),
  )


def _gather(beams: _Beams, index: jax.Array) -> _Beams:
  """Takes beams `index` [B, N] of every row."""
  return jax.tree.map(
    lambda x: jnp.take_along_axis(
      x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1
    ),
    beams,
  )


def _advance(
  rules,
  length_penalty,
  early_stopping,
  logits,
  position,
  running,
  finished,
  improvable,
):
  """Extends every running beam by one token, from logits [B * K, V].

  Returns:
    The running beams, the finished ones, whether a row [B, 1] may still
    improve, and which former beam [B, K] each running one extends.
  """
  beams = running.scores.shape[1]
  # Rounded from float64 once, as Python's own numbers are in transformers.
  norms = jnp.asarray(
    np.arange(1, rules.max_new_tokens + 1, dtype=np.float64) ** length_penalty,
    jnp.float32,
  )
  grown, parents = _grow(rules, logits, position, running)
  ended = rules.ends(_at(grown.tokens, position))
  ended |= position + 1 == rules.max_new_tokens
  alive, order = jax.lax.top_k(grown.scores + ended * _DEAD, beams)
  running = dataclasses.replace(_gather(grown, order), scores=alive)
  parents = jnp.take_along_axis(parents, order, axis=1)

  closed = ~improvable
  if early_stopping is True:
    closed |= jnp.all(finished.finished, axis=1, keepdims=True)
  # Those ranked after K are there to go on with only.
  eligible = ended & (jnp.arange(ended.shape[1])[None] < beams)
  scores = grown.scores / norms[position] + closed * _DEAD + ~eligible * _DEAD
  grown = dataclasses.replace(grown, scores=scores, finished=eligible)
  merged = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), finished, grown)
  finished = _gather(merged, jax.lax.top_k(merged.scores, beams)[1])

  reach = position
  if early_stopping == 'never' and length_penalty > 0:
    reach = rules.max_new_tokens - 1
  best = running.scores[:, :1] / norms[reach]
  worst = jnp.min(finished.scores, axis=1, keepdims=True)
  worst = jnp.where(finished.finished, worst, _DEAD)
  improvable &= jnp.any(best > worst, axis=1, keepdims=True)
  return running, finished, improvable, parents


def _grow(rules, logits, position, running):
  """Returns the best continuations, [B, fan * K] beams, and their parents."""
  batch, beams = running.scores.shape
  vocab_size = logits.shape[-1]
  policy = jax.nn.log_softmax(logits.astype(jnp.float32))
  total = rules.forbid(policy, position).reshape(batch, beams, vocab_size)
  total = (total + running.scores[..., None]).reshape(batch, -1)
  scores, index = jax.lax.top_k(total, _fan_out(rules) * beams)
  logprobs = jnp.take_along_axis(policy.reshape(batch, -1), index, axis=1)
  parents = index // vocab_size
  grown = _gather(running, parents)
  return dataclasses.replace(
    grown,
    tokens=grown.tokens.at[:, :, position].set(index % vocab_size),
    logprobs=grown.logprobs.at[:, :, position].set(logprobs),
    lengths=jnp.full(scores.shape, position + 1, jnp.int32),
    scores=scores,
  ), parents


def _at(sequences: jax.Array, position: jax.Array | int) -> jax.Array:
  """Returns column `position` of [B, K, T]."""
  return jax.lax.dynamic_index_in_dim(sequences, position, 2, keepdims=False)


def _response(rules: rules_lib.Rules, best: _Beams) -> types.Response:
  """Returns the response that the only beam of every row holds."""
  mask = jnp.arange(rules.max_new_tokens)[None] < best.lengths
  return types.Response(
    tokens=jnp.where(mask, best.tokens[:, 0], rules.pad_id),
    mask=mask,
    sampling_logprobs=jnp.zeros(mask.shape, jnp.float32),
    policy_logprobs=jnp.where(mask, best.logprobs[:, 0], 0.0),
  )
