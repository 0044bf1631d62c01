"""What the losses read, to gradients, to the next state."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax import losses, objective, optimizers, types
from kdjax import rows as rows_lib
from kdjax.models import api
from kdjax.objective import features
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
  weights = term_weights(settings, scored, state.step)
  moving, resting = optimizers.split(state.params, settings.moves)

  def loss_fn(moving, micro, dropout_key):
    params = optimizers.join(moving, resting)
    return total_loss(
      settings, params, teacher_params, micro, weights, state.step, dropout_key
    )

  micros = rows_lib.split(scored, parts)
  key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), DROPOUT)
  key = jax.random.fold_in(key, update)
  loss, metrics, grads = _accumulate(loss_fn, moving, micros, key)
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


def term_weights(
  settings: Settings, scored: Scored, step: jax.Array
) -> dict[str, jax.Array]:
  """Returns each term's weight over its count, on the whole batch."""
  views = dict(
    zip((draw.key for draw in settings.objective.views()), scored.views)
  )
  weights = {}
  for term in settings.objective.terms:
    mask = scored.targets[term.name].mask
    weight = term.weight_at(step)
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
  moving, resting = optimizers.split(state.params, settings.moves)
  updates, opt_state = settings.optimizer.update(grads, state.opt_state, moving)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  finite &= jnp.isfinite(optax.tree.norm(updates))

  def keep(new, old):
    return jnp.where(finite, new, old)

  moved = jax.tree.map(keep, optax.apply_updates(moving, updates), moving)
  params = optimizers.join(moved, resting)
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


def total_loss(
  settings: Settings,
  params: Mapping[str, api.Params],
  teacher_params: api.Params | None,
  scored: Scored,
  weights: Mapping[str, jax.Array],
  step: jax.Array,
  dropout_key: jax.Array,
) -> tuple[jax.Array, Metrics]:
  """Returns the loss of a micro-batch, and every term's (sum, count).

  Args:
    settings: of the step.
    params: 'student', and the terms' own.
    teacher_params: whose output head turns its hidden states into logits.
    scored: the micro-batch.
    weights: of each term over its count, from `term_weights`.
    step: [] int32.
    dropout_key: of the micro-batch.
  """
  goal, loss, metrics, readings = settings.objective, 0.0, {}, {}
  for i, (draw, view) in enumerate(zip(goal.views(), scored.views)):
    reading = _read(
      settings,
      params['student'],
      teacher_params,
      view,
      goal.needs(draw),
      jax.random.fold_in(dropout_key, i),
    )
    readings[draw.key] = reading
    if reading.compares:
      suffix = f'/{draw.label}' if len(goal.views()) > 1 else ''
      found = _divergences(settings, step, reading) | _mass(reading)
      metrics |= {f'{name}{suffix}': pair for name, pair in found.items()}
  values = {}
  for key, reading in readings.items():
    own = goal.tokenwise(key)
    if own:
      part, found = reading.weigh(own, scored.targets, weights, step)
      loss, values = loss + part, values | found
  for term in goal.terms:
    target = scored.targets[term.name]
    apart = term.name not in values
    if apart:
      read = tuple(readings[draw.key] for draw in term.draws())
      values[term.name] = term.values(step, read, target, params.get(term.name))
    value, more = values[term.name]
    pair = objective.reduce(value, target.mask, term.normalize)
    if apart:
      loss += weights[term.name] * pair[0]
    metrics[f'loss/{term.name}'] = pair
    for name, each in more.items():
      total = objective.reduce(each, target.mask, 'token')
      metrics[f'{term.name}/{name}'] = total
  return loss, jax.lax.stop_gradient(metrics)


def _read(
  settings: Settings,
  student: api.Params,
  teacher_params: api.Params | None,
  view: objective.View,
  needs: Collection[str],
  dropout_key: jax.Array,
) -> objective.HiddenReading:
  """Runs the student over the responses of a view."""
  tokens, length = view.response.tokens, view.response.tokens.shape[1]
  if 'after' in needs:
    tokens = jnp.pad(tokens, ((0, 0), (0, 1)))
  hidden, layers = forward(
    settings.student,
    student,
    view.prompt,
    tokens,
    needs,
    dropout_key=dropout_key,
  )
  count, teacher_head = settings.num_tokens, None
  if view.teacher is not None:
    teacher_head = settings.teacher.output_head(teacher_params).first(count)
  return objective.HiddenReading(
    view,
    hidden[:, :length],
    settings.student.output_head(student).first(count),
    teacher_head,
    layers,
    after=hidden[:, 1:] if 'after' in needs else None,
    chunk_size=settings.chunk_size,
    batch_axes=types.BATCH_AXES,
  )


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
  settings: Settings, step: jax.Array, reading: objective.HiddenReading
) -> Metrics:
  """Both KL divergences, a token and at the first (DPKD's ablation).

  Where a cache knows the teacher's likeliest tokens alone, no more than they
  are: see `losses.sparse`.

  Measured every `measure_every` steps; in between, their counts are zero.
  """
  kinds = {'forward_kl': losses.forward_kl, 'reverse_kl': losses.reverse_kl}

  def both(reading):
    logits = reading.logits, reading.teacher_logits
    return {name: divergence(*logits) for name, divergence in kinds.items()}

  def measure():
    mask, found = reading.mask, {}
    for name, values in jax.lax.stop_gradient(reading.each(both)).items():
      found[name] = objective.reduce(values, mask, 'token')
      first = objective.reduce(values[:, :1], mask[:, :1], 'token')
      found[f'{name}_first'] = first
    return jax.tree.map(jnp.float32, found)

  nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(measure))
  # The update that a line of metrics is written after is the one measured.
  due = (step + 1) % settings.measure_every == 0
  # How seldom, for who counts a compiled program's work (`plan.counting`).
  with jax.named_scope(f'every_{settings.measure_every}'):
    return jax.lax.cond(due, measure, lambda: nothing)


def _mass(reading: objective.HiddenReading) -> Metrics:
  """The teacher's probability that cached tokens hold, a token."""
  if reading.known is None:
    return {}
  mass = -jnp.expm1(reading.known.tail)
  return {'teacher_mass': objective.reduce(mass, reading.mask, 'token')}


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
