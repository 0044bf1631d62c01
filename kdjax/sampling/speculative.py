"""Speculative sampling: a small model drafts, the target verifies.

In each round the draft proposes x_i ~ q_i, i = 1 ... k. The target reads all at
once, and they stay with chance min(1, p_i(x_i) / q_i(x_i)) up to the first that
doesn't. One more token follows,

  y ~ normalize(max(p_i - q_i, 0)) in its place, or y ~ p_{k+1} after all k.

Whatever the draft is, responses have the target's distribution; it decides only
how many tokens a round yields, 1 to k + 1.

>>> from kdjax import testing
>>> model, params = testing.tabular(jax.random.key(0))
>>> prompt = types.Prompt(jnp.array([[3]]), jnp.array([[True]]))
>>> response, (accepted, proposed) = speculate(
...   model, params, model, params, prompt, jax.random.key(1),
...   max_new_tokens=9, draft_tokens=2, eos_id=(),
... )
>>> print(response.tokens.shape, accepted, proposed)
(1, 9) 6 6

References:
  Leviathan et al., 2023, https://arxiv.org/abs/2211.17192, algorithm 1.
  Chen et al., 2023, https://arxiv.org/abs/2302.01318, algorithm 2.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api
from kdjax.sampling import draws
from kdjax.sampling import logits as logits_lib
from kdjax.sampling import rules as rules_lib


@dataclasses.dataclass(frozen=True)
class _Settings:
  """The static settings of `speculate`; hashable, so that jit can key on it.

  `greedy` is None where only the traced temperature knows.
  """

  rules: rules_lib.Rules
  greedy: bool | None
  filters: tuple[int, float, float]
  draft_tokens: int


@types.struct
class _Loop:
  """What a round hands to the next.

  Attributes:
    response: [B, T], what is committed so far.
    length: [B] int32, how many tokens that is.
    done: [B] bool.
    states: the target's, which has read all of them but the last, and the
      draft's, all but the last two.
    round: how many there were. A row that isn't done is in all of them.
    counts: proposals accepted and proposals made, over all rows.
  """

  response: types.Response
  length: jax.Array
  done: jax.Array
  states: tuple[api.DecodeState, api.DecodeState]
  round: jax.Array
  counts: tuple[jax.Array, jax.Array]


def speculate(
  model: api.LanguageModel,
  params: api.Params,
  draft: api.LanguageModel,
  draft_params: api.Params,
  prompt: Any,
  key: jax.Array,
  *,
  max_new_tokens: int,
  draft_tokens: int = 4,
  draft_prompt: Any = None,
  min_new_tokens: int = 0,
  temperature: float | jax.Array = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  eos_id: int | Sequence[int] | None = None,
  pad_id: int | None = None,
  suppress_ids: Sequence[int] = (),
  row_ids: jax.Array | None = None,
) -> tuple[types.Response, tuple[jax.Array, jax.Array]]:
  """Samples what `generate` would, in fewer passes of the target.

  Greedy responses equal those of `generate`, as far as k + 1 tokens read at
  once round like one by one. The key of row i in round r is `fold_in(fold_in(
  key, row_ids[i]), r)`: a row's sample depends neither on the rest of its batch
  nor on what is accepted there. Compiled once for every set of shapes and of
  static settings; no gradient flows through.

  Args:
    model: the target; hashable.
    params: its parameters.
    draft: a faster model of the same tokenizer; hashable. It may be padded to
      another vocabulary size, or lack tokens that the target says nonetheless.
    draft_params: the draft's parameters.
    prompt: what the target reads, B rows.
    key: a PRNG key. All that isn't named here is as in `generate`.
    max_new_tokens: T. The response always has T positions.
    draft_tokens: k. Models of limited positions need room for T + k.
    draft_prompt: what the draft reads, by default the target's prompt.

  Returns:
    The target's Response, [B, T] arrays, and the acceptance rate as a pair
    (sum, count): proposals accepted, proposals made. Those past the end of
    their response are in neither.

  Raises:
    ValueError: for a setting out of its range.
  """
  draft_prompt = prompt if draft_prompt is None else draft_prompt
  rules = rules_lib.resolve(
    model,
    prompt,
    max_new_tokens=max_new_tokens,
    min_new_tokens=min_new_tokens,
    eos_id=eos_id,
    pad_id=pad_id,
    suppress_ids=suppress_ids,
  )
  _check_draft(model, draft, prompt, draft_prompt, rules, draft_tokens)
  filters = top_k, top_p, min_p
  return _speculate(
    (model, draft),
    _settings(rules, temperature, filters, draft_tokens),
    (params, draft_params),
    (prompt, draft_prompt),
    key,
    jnp.asarray(temperature, jnp.float32),
    draws.row_ids(row_ids, len(jax.tree.leaves(prompt)[0])),
  )


def _settings(rules, temperature, filters, draft_tokens) -> _Settings:
  """Returns what the compiled part is compiled for."""
  if jnp.ndim(temperature):
    temperature = jnp.asarray(temperature)
  draws.check(temperature, *filters)
  top_k, top_p, min_p = filters
  return _Settings(
    rules=rules,
    greedy=None if isinstance(temperature, jax.Array) else temperature == 0,
    filters=(int(top_k), float(top_p), float(min_p)),
    draft_tokens=int(draft_tokens),
  )


def _check_draft(model, draft, prompt, draft_prompt, rules, draft_tokens):
  """Raises ValueError for a draft that doesn't fit."""
  if draft_tokens < 1:
    raise ValueError(f'draft_tokens is {draft_tokens}; it must be 1 or more.')
  rows, more = (len(jax.tree.leaves(x)[0]) for x in (prompt, draft_prompt))
  if rows != more:
    raise ValueError(
      f'prompt has {rows} rows and draft_prompt {more}; give both every row.'
    )
  room = rules.max_new_tokens + draft_tokens
  named = {'target': (model, prompt), 'draft': (draft, draft_prompt)}
  for name, (reader, read) in named.items():
    most = reader.max_positions
    width = max(leaf.shape[1] for leaf in jax.tree.leaves(read))
    if most is not None and width + room > most:
      raise ValueError(
        f'A prompt of {width} positions, max_new_tokens={rules.max_new_tokens} '
        f'and draft_tokens={draft_tokens} (past the end) exceed the {most} '
        f'positions of the {name}. Shorten one by {width + room - most}.'
      )


@functools.partial(jax.jit, static_argnames=('models', 'settings'))
def _speculate(models, settings, params, prompts, key, temperature, row_ids):
  """The compiled part of `speculate`; the target comes first in each pair."""
  # As in `generate`: reverse mode cannot pass a while loop.
  params = jax.lax.stop_gradient(params)
  rules, count = settings.rules, settings.draft_tokens
  temperature = jnp.broadcast_to(temperature, row_ids.shape)
  keys = draws.row_keys(key, row_ids, 1)
  (logits, target_state), (_, draft_state) = (
    # A row's last round starts at T - 1 or before and reads k tokens.
    model.prefill(own, prompt, rules.max_new_tokens + count - 1)
    for model, own, prompt in zip(models, params, prompts)
  )
  propose = functools.partial(_propose, models, settings, params, temperature)
  verify = functools.partial(_verify, settings, temperature)

  def run_round(loop):
    round_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, loop.round)
    draw = draws.uniforms(round_keys, 2 * count + 1)
    proposals, probs, draft_state = propose(draw, loop)
    last = _at(loop.response.tokens, loop.length - 1)
    logits, target_state = models[0].decode(
      params[0], loop.states[0], jnp.concatenate([last, proposals], 1)
    )
    loop = dataclasses.replace(loop, states=(target_state, draft_state))
    return _commit(rules, loop, *verify(draw, loop, logits, proposals, probs))

  loop = _start(rules, logits.shape[0], (target_state, draft_state))
  # The first token ends a round in which nothing was drafted.
  draw, logits = draws.uniforms(keys, 1), logits[:, None]
  nothing = loop.response.tokens[:, :0], logits[:, :0]
  loop = _commit(rules, loop, *verify(draw, loop, logits, *nothing))
  loop = jax.lax.while_loop(lambda x: ~jnp.all(x.done), run_round, loop)
  return loop.response, loop.counts


def _start(rules: rules_lib.Rules, batch: int, states: Any) -> _Loop:
  """Returns what stands before the first round."""
  shape, zero = (batch, rules.max_new_tokens), jnp.float32(0)
  blank = types.Response(jnp.int32(rules.pad_id), False, zero, zero)
  return _Loop(
    response=jax.tree.map(lambda fill: jnp.full(shape, fill), blank),
    length=jnp.zeros(batch, jnp.int32),
    done=jnp.zeros(batch, bool),
    states=states,
    round=jnp.int32(0),
    counts=(jnp.int32(0),) * 2,
  )


def _at(values: jax.Array, column: jax.Array) -> jax.Array:
  """Returns column `column` [B] of [B, N, ...], [B, 1, ...]."""
  index = column.reshape(-1, *[1] * (values.ndim - 1))
  return jnp.take_along_axis(values, index, axis=1)


def _propose(models, settings, params, temperature, draw, loop):
  """Returns k tokens [B, k], their q [B, k, V], and the draft's state."""
  model, draft = models
  common = min(draft.num_tokens, model.num_tokens)

  def read(state, tokens):
    # The draft's table may end before the target's.
    tokens = jnp.where(tokens < draft.num_tokens, tokens, draft.pad_id)
    return draft.decode(params[1], state, tokens)

  def choose(logits, offset):
    # Its own padding off, the target's on.
    more = ((0, 0), (0, model.vocab_size - common))
    logits = jnp.pad(logits[:, :common], more, constant_values=-jnp.inf)
    logits = settings.rules.forbid(logits, (loop.length + offset)[:, None])
    if settings.greedy:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32), None
    logprobs = _logprobs(settings, temperature, logits)
    return logits_lib.sample(logprobs, draw[offset])[0], jnp.exp(logprobs)

  def step(carry, offset):
    state, token = carry
    logits, state = read(state, token[:, None])
    token, probs = choose(logits[:, 0], offset)
    return (state, token), (token, probs)

  # If all was accepted, the draft hasn't read its own last proposal either.
  # Both tokens in one pass are cheaper than one pass more in every round.
  known = jnp.maximum(loop.length - 2, 0)
  slots = known[:, None] + jnp.arange(2)
  window = jnp.take_along_axis(loop.response.tokens, slots, axis=1)
  logits, state = read(loop.states[1], window)
  first = choose(_at(logits, loop.length - 1 - known)[:, 0], 0)
  carry = state.rewind(loop.length), first[0]
  ahead = jnp.arange(1, settings.draft_tokens)
  (state, _), rest = jax.lax.scan(step, carry, ahead)
  proposals, probs = jax.tree.map(
    lambda x, y: jnp.concatenate([x[:, None], jnp.moveaxis(y, 0, 1)], 1),
    first,
    rest,
  )
  return proposals, probs, state


def _logprobs(settings, temperature, logits):
  """Returns log-probabilities [B, ..., V]: tempered, truncated, normalised.

  Where the temperature is 0 the likeliest token has all mass.
  """
  temperature = temperature.reshape(-1, *[1] * (logits.ndim - 1))
  top_k, top_p, min_p = settings.filters
  cold = temperature == 0
  kept = logits_lib.temper(logits, temperature)
  kept = logits_lib.truncate(kept, top_k=top_k, top_p=top_p, min_p=min_p)
  if settings.greedy is None:
    best = jnp.argmax(logits, axis=-1, keepdims=True)
    only = jnp.where(jnp.arange(logits.shape[-1]) == best, 0.0, -jnp.inf)
    kept = jnp.where(cold, only, kept)
  return jax.nn.log_softmax(kept)


def _verify(settings, temperature, draw, loop, logits, proposals, probs):
  """Judges proposals [B, k] by the target's logits [B, k + 1, V].

  Returns k + 1 columns of the response, and how many proposals are accepted,
  [B]. Those columns count, and the one after them.
  """
  count = proposals.shape[1]
  offsets = jnp.arange(count + 1)
  logits = logits.astype(jnp.float32)
  slots = loop.length[:, None] + offsets
  allowed = settings.rules.forbid(logits, slots[..., None])
  if settings.greedy:
    best = jnp.argmax(allowed, axis=-1).astype(jnp.int32)
    accepted = _leading(best[:, :count] == proposals)
    last = _at(best, accepted)
  else:
    logprobs = _logprobs(settings, temperature, allowed)
    uniforms = draw[count : 2 * count, :, 0].T
    accepted, rest = accept(jnp.exp(logprobs), probs, proposals, uniforms)
    last = logits_lib.sample(jnp.log(rest), draw[-1])[0][:, None]
  tokens = jnp.concatenate([proposals, last], 1)
  tokens = jnp.where(offsets < accepted[:, None], tokens, last)

  def chosen(values):
    return jnp.take_along_axis(values, tokens[..., None], axis=-1)[..., 0]

  policy = chosen(logits) - jax.nn.logsumexp(logits, axis=-1)
  sampling = jnp.zeros_like(policy) if settings.greedy else chosen(logprobs)
  mask = jnp.ones(tokens.shape, bool)
  return types.Response(tokens, mask, sampling, policy), accepted


def accept(
  target: jax.Array, draft: jax.Array, proposals: jax.Array, uniforms: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Accepts x_i ~ q_i with chance min(1, p_i / q_i), up to the first refused.

  Args:
    target: p, [B, k + 1, V] float32.
    draft: q, [B, k, V] float32.
    proposals: x, [B, k].
    uniforms: [B, k], in (0, 1).

  Returns:
    How many are accepted, [B] int32, and the weights [B, V] to draw the next
    token by: max(p - q, 0) where one was refused, p after the last.
  """
  count = proposals.shape[1]
  p, q = (
    jnp.take_along_axis(probs[:, :count], proposals[..., None], -1)[..., 0]
    for probs in (target, draft)
  )
  accepted = _leading(uniforms * q < p)
  p = _at(target, accepted)[:, 0]
  q = _at(jnp.pad(draft, ((0, 0), (0, 1), (0, 0))), accepted)[:, 0]
  rest = jnp.maximum(p - q, 0.0)
  # Nothing rests if p and q are equal but for rounding, or if q is NaN.
  some = jnp.sum(rest, axis=-1, keepdims=True) > 0
  return accepted, jnp.where(some, rest, p)


def _leading(flags: jax.Array) -> jax.Array:
  """Returns how many of flags [B, k] are True before the first False."""
  return jnp.sum(jnp.cumprod(flags, axis=1), axis=1, dtype=jnp.int32)


def _commit(rules, loop, found, accepted):
  """Puts the accepted tokens and the one after them behind each response."""
  offsets = jnp.arange(found.tokens.shape[1])
  slots = loop.length[:, None] + offsets
  ends = rules.ends(found.tokens)
  inside = jnp.cumsum(ends, axis=1) - ends == 0
  inside &= (slots < rules.max_new_tokens) & ~loop.done[:, None]
  drafted, said = inside[:, :-1], inside & (offsets <= accepted[:, None])
  # What isn't said goes to a slot that doesn't exist.
  slots = jnp.where(said, slots, rules.max_new_tokens)
  rows = jnp.arange(slots.shape[0])[:, None]
  length = loop.length + jnp.sum(said, axis=1, dtype=jnp.int32)
  done = loop.done | jnp.any(ends & said, axis=1)
  done |= length == rules.max_new_tokens
  # Rows that are done decode on where there is always room.
  target_state, draft_state = (
    state.rewind(jnp.where(done, 0, jnp.maximum(length - behind, 0)))
    for state, behind in zip(loop.states, (1, 2))
  )
  kept = drafted & (offsets[:-1] < accepted[:, None])
  count = functools.partial(jnp.sum, dtype=jnp.int32)
  return _Loop(
    response=jax.tree.map(
      lambda old, new: old.at[rows, slots].set(new, mode='drop'),
      loop.response,
      found,
    ),
    length=length,
    done=done,
    states=(target_state, draft_state),
    round=loop.round + 1,
    counts=(loop.counts[0] + count(kept), loop.counts[1] + count(drafted)),
  )
