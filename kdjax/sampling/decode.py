"""Generation: one prefill, then blocks of tokens until every row is done.

Calls only a model's `prefill` and `decode`, without dropout, and is compiled
once for every set of shapes and of static settings: all but the arrays and the
temperature. No gradient flows through it. From 256 tokens on, early ones are
decoded with a part of the cache, if the model's state can `narrow(length)`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import constraints, types
from kdjax.models import api
from kdjax.sampling import draws
from kdjax.sampling import logits as logits_lib
from kdjax.sampling import loop as loop_lib
from kdjax.sampling import rules as rules_lib


@dataclasses.dataclass(frozen=True)
class _Settings:
  """The static settings of `generate`; hashable, so that jit can key on it.

  `greedy` is None where only the traced temperature knows.
  """

  rules: rules_lib.Rules
  greedy: bool | None
  top_k: int
  top_p: float
  min_p: float
  samples: int
  parts: loop_lib.Parts


def generate(
  model: api.LanguageModel,
  params: api.Params,
  prompt: Any,
  key: jax.Array,
  *,
  max_new_tokens: int,
  min_new_tokens: int = 0,
  temperature: float | jax.Array = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  eos_id: int | Sequence[int] | None = None,
  pad_id: int | None = None,
  suppress_ids: Sequence[int] = (),
  row_ids: jax.Array | None = None,
  samples_per_prompt: int = 1,
  block: int = 8,
  compact: bool = True,
) -> types.Response:
  """Samples responses y_t ~ truncate(softmax(z_t / temperature)), T tokens.

  The key of row i at token t is `fold_in(fold_in(key, row_ids[i]), t)`, so a
  row's sample depends neither on `block` and `compact` nor on the rest of its
  batch (as far as its logits don't: kernels may round differently at another
  batch size). Sample j > 0 of a prompt folds -j into the row's key first: more
  samples change none of the earlier ones.

  Args:
    model: any language model; hashable.
    params: its parameters.
    prompt: what it reads, B rows.
    key: a PRNG key.
    max_new_tokens: T. The response always has T positions.
    min_new_tokens: suppresses end-of-sequence tokens before this many tokens.
    temperature: a scalar or [B], may be traced. 0 is greedy decoding; a Python
      0 compiles to a plain argmax.
    top_k: keeps the k likeliest tokens; 0 keeps all.
    top_p: keeps the likeliest tokens that hold this mass; 1 keeps all.
    min_p: keeps tokens of at least this share of the likeliest's probability.
    eos_id: what ends a response, one id or several; default `model.eos_ids`.
    pad_id: fills positions after the end; default `model.pad_id`.
    suppress_ids: ids never sampled. Nor are those from `model.num_tokens` on.
    row_ids: [B] integers, such as example ids, that select each row's random
      numbers; default 0, 1, ..., B-1.
    samples_per_prompt: n responses a prompt, adjacent: B * n rows.
    block: the most tokens decoded between two looks at which rows are done.
    compact: goes on with half of 16 rows or more once the others are done, if T
      is 32 or more, and with a quarter from 64 on. Compiles the loop two or
      three times, for nothing if all are equally long. Off on several devices.

  Returns:
    A Response of [B, T] arrays. `sampling_logprobs` belong to the tempered,
    truncated and suppressed distribution and are 0 where decoding was greedy;
    `policy_logprobs` to the softmax of the model's own logits over all
    `vocab_size` of them, as in `models.logprobs`. Both are 0 off the mask.

  Raises:
    ValueError: for a setting out of its range.
  """
  if np.ndim(temperature):
    temperature = jnp.asarray(temperature)
  rules = rules_lib.resolve(
    model,
    prompt,
    max_new_tokens=max_new_tokens,
    min_new_tokens=min_new_tokens,
    eos_id=eos_id,
    pad_id=pad_id,
    suppress_ids=suppress_ids,
  )
  row_ids = draws.row_ids(row_ids, jax.tree.leaves(prompt)[0].shape[0])
  filters = top_k, top_p, min_p
  draws.check(temperature, *filters, samples_per_prompt, block)
  parts = loop_lib.cut(
    max_new_tokens, row_ids.size * samples_per_prompt, block, _may(compact)
  )
  settings = _settings(rules, temperature, filters, samples_per_prompt, parts)
  temperature = jnp.asarray(temperature, jnp.float32)
  return _generate(model, settings, params, prompt, key, temperature, row_ids)


def _may(compact: bool) -> bool:
  """Whether rows may leave the batch: not where devices have their own."""
  return compact and jax.sharding.get_abstract_mesh().size <= 1


def _settings(rules, temperature, filters, samples, parts) -> _Settings:
  """Returns what the compiled part is compiled for."""
  top_k, top_p, min_p = filters
  return _Settings(
    rules=rules,
    greedy=None if isinstance(temperature, jax.Array) else temperature == 0,
    top_k=int(top_k),
    top_p=float(top_p),
    min_p=float(min_p),
    samples=int(samples),
    parts=parts,
  )


@functools.partial(jax.jit, static_argnames=('model', 'settings'))
def _generate(model, settings, params, prompt, key, temperature, row_ids):
  """The compiled part of `generate`."""
  # Not only the tokens but all that leads to them is constant to a gradient:
  # reverse mode cannot pass a while loop at all.
  params = jax.lax.stop_gradient(params)
  length = settings.rules.max_new_tokens
  uniforms = None
  if not settings.greedy:
    keys = draws.row_keys(key, row_ids, settings.samples)
    uniforms = draws.uniforms(keys, length)
  temperature = jnp.repeat(
    jnp.broadcast_to(temperature, row_ids.shape), settings.samples
  )
  choose = functools.partial(_choose, settings, uniforms, temperature)

  # Nothing reads the last token.
  logits, state = model.prefill(params, prompt, max(1, length - 1))
  if settings.samples > 1:
    rows = jnp.repeat(jnp.arange(row_ids.size), settings.samples)
    logits, state = logits[rows], state.take(rows)
  rows = jnp.arange(temperature.size)
  first, done = choose(rows, logits, 0, jnp.zeros(rows.shape, bool))

  def step(rows, carry, position):
    state, token, done = carry
    logits, state = model.decode(params, state, token[:, None])
    column, done = choose(rows, logits[:, 0], position, done)
    return (state, column.tokens, done), column

  columns = _columns(settings, first)
  if length > 1:
    start = jnp.int32(1), rows, state, first.tokens, done, columns
    columns = loop_lib.run(settings.parts, step, loop_lib.Loop(*start))
  return jax.tree.map(lambda column: column[:length].T, columns)


def _columns(settings: _Settings, first: types.Response) -> types.Response:
  """Returns columns [T or more, B] of which only the first isn't blank."""

  def start(column, fill):
    rest = settings.parts.ends[-1] - 1
    rest = jnp.full((rest, *column.shape), fill, column.dtype)
    return jnp.concatenate([column[None], rest])

  blank = types.Response(settings.rules.pad_id, False, 0.0, 0.0)
  return jax.tree.map(start, first, blank)


def _choose(settings, uniforms, temperature, rows, logits, position, done):
  """Chooses the tokens of `rows` [R] at `position` from logits [R, V].

  Returns:
    One column of the response, and which rows are done after it.
  """
  rules = settings.rules
  logits = draws.deal(logits.astype(jnp.float32))
  allowed = rules.forbid(logits, position)
  if settings.greedy:
    token = jnp.argmax(allowed, axis=-1).astype(jnp.int32)
    logprob = jnp.zeros(token.shape, jnp.float32)
  else:
    token, logprob = _sample(
      settings, uniforms[position, rows], temperature[rows], allowed
    )
  policy = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
  policy = policy - jax.nn.logsumexp(logits, axis=-1)
  column = types.Response(
    tokens=jnp.where(done, rules.pad_id, token),
    mask=~done,
    sampling_logprobs=jnp.where(done, 0.0, logprob),
    policy_logprobs=jnp.where(done, 0.0, policy),
  )
  # Or the layers that read the tokens would be dealt out as well.
  return constraints.by_row((column, done | rules.ends(token)))


def _sample(settings, uniforms, temperature, allowed):
  """Draws tokens [R] from logits [R, V]; greedily where temperature is 0."""
  cold = temperature == 0
  kept = logits_lib.truncate(
    logits_lib.temper(allowed, temperature[:, None]),
    top_k=settings.top_k,
    top_p=settings.top_p,
    min_p=settings.min_p,
  )
  token, logprob = logits_lib.sample(kept, uniforms)
  if settings.greedy is None:
    token = jnp.where(cold, jnp.argmax(allowed, axis=-1), token)
    logprob = jnp.where(cold, 0.0, logprob)
  return token.astype(jnp.int32), logprob
