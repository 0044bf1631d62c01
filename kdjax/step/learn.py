"""What the losses read, to gradients, to the next state."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax import losses, objective, types
from kdjax import rows as rows_lib
from kdjax.models import api
from kdjax.objective import features
from kdjax.optimizers import schedule
from kdjax.state import State
from kdjax.step.settings import DROPOUT, Metrics, Settings


@types.struct
class Scored:
  """A batch's responses, judged: all that gradients are computed from.

  Attributes:
    views: what each forward pass of the student reads.
    targets: what each term is given about the whole batch, by its name.
  """

  views: tuple[objective.View, ...]
  targets: dict[str, objective.Target]


def learn(
  settings: Settings,
  state: State,
  teacher_params: api.Params | None,
  scored: Scored,
  parts: int,
  update: jax.Array | int = 0,
) -> tuple[State, Metrics]:
  """Returns the next state and the update's metrics as (sum, count) pairs.

  Minimises `Σ_k w_k · sum_k / COUNT_k`, with the counts of the whole batch, so
  that micro-batches accumulate to exactly the same gradient. An update whose
  loss or gradient isn't finite changes nothing but the counters.

  Args:
    settings: of the step.
    state: before the update.
    teacher_params: whose output head turns its hidden states into logits.
    scored: from `score`.
    parts: micro-batches.
    update: which of the `updates_per_rollout` it is; the last ends the step.
  """
  weights = _weights(settings, scored, state.step)

  def loss_fn(params, micro, dropout_key):
    metrics = terms(
      settings, params, teacher_params, micro, state.step, dropout_key
    )
    loss = sum(weights[name] * metrics[f'loss/{name}'][0] for name in weights)
    return loss, metrics

  micros = rows_lib.split(scored, parts)
  key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), DROPOUT)
  key = jax.random.fold_in(key, update)
  loss, metrics, grads = _accumulate(loss_fn, state.params, micros, key)
  last = update == settings.updates_per_rollout - 1
  state, finite, norm = _apply(settings, state, grads, loss, last)
  metrics |= {'loss': (loss, 1), 'gradient_norm': (norm, 1)}
  # Nothing is counted of a skipped update, or its NaN would hide the others.
  metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
  tokens = sum(jnp.sum(view.response.mask) for view in scored.views)
  metrics |= {
    'skipped': (state.skipped, 1),
    'consecutive_skipped': (state.consecutive_skipped, 1),
    'tokens': (tokens, 1),
  }
  return state, metrics


def _weights(
  settings: Settings, scored: Scored, step: jax.Array
) -> dict[str, jax.Array]:
  """Returns each term's weight over its count on the whole batch."""
  views = dict(
    zip((draw.key for draw in settings.objective.views()), scored.views)
  )
  weights = {}
  for term in settings.objective.terms:
    mask = scored.targets[term.name].mask
    weight = schedule(term.weight)(step)
    if term.finished_only:
      response = views[term.draws()[0].key].response
      all_rows = jnp.sum(jnp.any(response.mask, -1))
      kept = jnp.sum(mask.any(-1) if mask.ndim > 1 else mask)
      weight *= kept / jnp.maximum(all_rows, 1)
    total = objective.count(mask, term.normalize)
    weights[term.name] = weight / jnp.maximum(total, 1)
  return weights


def _apply(
  settings: Settings, state: State, grads: Any, loss: jax.Array, last: Any
) -> tuple[State, jax.Array, jax.Array]:
  """Returns the updated state, whether all was finite, and the norm."""
  norm = optax.tree.norm(grads)
  updates, opt_state = settings.optimizer.update(
    grads, state.opt_state, state.params
  )
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  finite &= jnp.isfinite(optax.tree.norm(updates))
  params = optax.apply_updates(state.params, updates)

  def keep(new, old):
    return jnp.where(finite, new, old)

  params = jax.tree.map(keep, params, state.params)
  step, behaviour = state.step + last, state.behaviour
  if behaviour is not None:
    due = last & (step % settings.behaviour_sync == 0)
    behaviour = jax.tree.map(
      lambda new, old: jnp.where(due, new, old), params['student'], behaviour
    )
  state = dataclasses.replace(
    state,
    params=params,
    opt_state=jax.tree.map(keep, opt_state, state.opt_state),
    step=step,
    skipped=state.skipped + ~finite,
    consecutive_skipped=jnp.where(finite, 0, state.consecutive_skipped + 1),
    behaviour=behaviour,
  )
  return state, finite, norm


def terms(
  settings: Settings,
  params: Mapping[str, api.Params],
  teacher_params: api.Params | None,
  scored: Scored,
  step: jax.Array,
  dropout_key: jax.Array,
) -> Metrics:
  """Returns every term's (sum, count) and other metrics on a micro-batch."""
  goal, n = settings.objective, settings.num_tokens
  model, student = settings.student, params['student']
  metrics, readings = {}, {}
  for i, (draw, view) in enumerate(zip(goal.views(), scored.views)):
    key, needs = jax.random.fold_in(dropout_key, i), goal.needs(draw)
    tokens, length = view.response.tokens, view.response.tokens.shape[1]
    if 'after' in needs:
      tokens = jnp.pad(tokens, ((0, 0), (0, 1)))
    hidden, layers = forward(
      model, student, view.prompt, tokens, needs, dropout_key=key
    )
    logits = model.head(student, hidden[:, :length])[..., :n]
    teacher_logits = None
    if view.teacher is not None:
      teacher_logits = settings.teacher.head(teacher_params, view.teacher)
      teacher_logits = teacher_logits[..., :n]
      suffix = f'/{draw.label}' if len(goal.views()) > 1 else ''
      found = _divergences(settings, step, logits, teacher_logits, view)
      metrics |= {f'{name}{suffix}': pair for name, pair in found.items()}
    after = hidden[:, 1:] if 'after' in needs else None
    readings[draw.key] = objective.Reading(
      view, logits, teacher_logits, layers, after
    )
  for term in goal.terms:
    read = tuple(readings[draw.key] for draw in term.draws())
    target = scored.targets[term.name]
    values, more = term.values(step, read, target, params.get(term.name))
    metrics[f'loss/{term.name}'] = objective.reduce(
      values, target.mask, term.normalize
    )
    for name, each in more.items():
      total = objective.reduce(each, target.mask, 'token')
      metrics[f'{term.name}/{name}'] = jax.lax.stop_gradient(total)
  return metrics


def forward(
  model: api.LanguageModel,
  params: api.Params,
  prompt: types.Prompt,
  tokens: jax.Array,
  needs: Collection[str],
  **options: Any,
) -> tuple[jax.Array, Any]:
  """Returns hidden states [R, T, D] and, where losses match them, layers."""
  capture = tuple(kind for kind in api.CAPTURES if kind in needs)
  if not capture:
    return model.hidden_states(params, prompt, tokens, **options), None
  hidden, captured = model.hidden_states(
    params, prompt, tokens, capture=capture, **options
  )
  return hidden, features.by_layer(captured)


def _divergences(
  settings: Settings,
  step: jax.Array,
  logits: jax.Array,
  teacher_logits: jax.Array,
  view: objective.View,
) -> Metrics:
  """Both KL divergences, a token and at the first (DPKD's ablation).

  Measured every `measure_every` steps; in between, their counts are zero.
  """
  mask = view.response.mask
  kinds = {'forward_kl': losses.forward_kl, 'reverse_kl': losses.reverse_kl}

  def measure():
    student, found = jax.lax.stop_gradient(logits), {}
    for name, divergence in kinds.items():
      values = divergence(student, teacher_logits)
      found[name] = objective.reduce(values, mask, 'token')
      first = objective.reduce(values[:, :1], mask[:, :1], 'token')
      found[f'{name}_first'] = first
    return jax.tree.map(jnp.float32, found)

  nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(measure))
  # The update that a line of metrics is written after is the one measured.
  due = (step + 1) % settings.measure_every == 0
  return jax.lax.cond(due, measure, lambda: nothing)


def _accumulate(loss_fn, params, micros, key):
  """Returns loss, metrics and gradients, summed over micro-batches."""
  count = jax.tree.leaves(micros)[0].shape[0]
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def one(i, micro):
    (loss, metrics), grads = grad_fn(params, micro, jax.random.fold_in(key, i))
    return loss, metrics, grads

  first = jax.tree.map(lambda x: x[0], micros)
  if count == 1:
    return one(0, first)

  def body(total, item):
    return jax.tree.map(jnp.add, total, one(*item)), None

  shapes = jax.eval_shape(one, 0, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, _ = jax.lax.scan(body, zeros, (jnp.arange(count), micros))
  return total
