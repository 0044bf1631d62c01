"""One training step, as three pure functions of arrays: rollout, score, learn.

  rollout: prompts -> responses, sampled by the student where a mixture asks so
  score:   responses -> the teacher's hidden states
  learn:   responses, hidden states -> gradients -> the next state

Each is jitted by `Program`; sampled tokens never visit the host.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax import losses, objective, sampling, types
from kdjax import rows as rows_lib
from kdjax.models import api
from kdjax.state import State

# What a step's random numbers are for; folded into its key.
_ROLLOUT, _MIXTURE, _DROPOUT = range(3)

Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What a step is made of; holds no arrays, so that `jit` closes over it.

  Attributes:
    student: the model that trains.
    teacher: the frozen model, or None where no loss reads one.
    objective: what is minimised.
    optimizer: applied to the gradients.
    max_new_tokens: T of rollouts.
    sampling: further settings of `sampling.generate` for rollouts.
    micro_batch: rows whose gradients are computed at a time, or None for all.
      The update doesn't depend on it (up to rounding, and but for dropout).
    measure_every: updates between measurements of both divergences.
  """

  student: api.LanguageModel
  teacher: api.LanguageModel | None
  objective: objective.Objective
  optimizer: optax.GradientTransformation
  max_new_tokens: int
  sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  micro_batch: int | None = None
  measure_every: int = 10

  @property
  def num_tokens(self) -> int:
    """The ids that both models know; padded rows of the heads are left out."""
    sizes = [self.student.num_tokens]
    if self.teacher is not None:
      sizes.append(self.teacher.num_tokens)
    return min(sizes)

  def generation(self) -> dict[str, Any]:
    """The settings of `sampling.generate`; no token that the teacher lacks."""
    options = dict(self.sampling)
    foreign = range(self.num_tokens, self.student.num_tokens)
    suppressed = (*options.pop('suppress_ids', ()), *foreign)
    return {
      'max_new_tokens': self.max_new_tokens,
      'suppress_ids': suppressed,
      **options,
    }


def rollout(
  settings: Settings,
  params: api.Params,
  batch: types.Batch,
  step: jax.Array,
  key: jax.Array,
  rows: int,
) -> tuple[tuple[types.Response, ...], Metrics]:
  """Returns one response [B, T] a row for each view of the objective.

  Args:
    settings: of the step.
    params: what the student samples with.
    batch: prompts, and the responses that the data has.
    step: [] int32.
    key: of the run.
    rows: how many rows the student responds to (static).

  Raises:
    ValueError: the batch lacks responses that a term draws from.
  """
  key = jax.random.fold_in(key, step)
  mixture_key = jax.random.fold_in(key, _MIXTURE)
  size = batch.prompt.tokens.shape[0]
  responses, metrics = dict(batch.responses), {}
  if rows:
    chosen = objective.permutation(mixture_key, size)[:rows]
    ids = jnp.arange(size) if batch.example_id is None else batch.example_id
    prompt, ids = rows_lib.spread(
      jax.tree.map(lambda x: x[chosen], (batch.prompt, ids))
    )
    sampled = sampling.generate(
      settings.student,
      params,
      prompt,
      jax.random.fold_in(key, _ROLLOUT),
      row_ids=ids,
      **settings.generation(),
    )
    responses['student'] = rows_lib.scatter(sampled, chosen, size)
    ends = _ended(sampled, settings)
    metrics = {
      'rollout/length': (jnp.sum(sampled.mask), rows),
      'rollout/eos_fraction': (jnp.sum(ends), rows),
    }
  views = []
  for terms in settings.objective.views():
    _check_sources(terms[0], responses)
    source = objective.assign(terms[0], step, mixture_key, size, rows)
    names = list(terms[0].mixture())
    views.append(rows_lib.select(names, responses, source))
  return rows_lib.spread(tuple(views)), metrics


def _check_sources(
  term: objective.Term, responses: Mapping[str, types.Response]
) -> None:
  missing = term.sources() - set(responses)
  if len(term.mixture()) > 1:
    missing.discard('student')  # none at this step
  if missing:
    raise ValueError(
      f'term {term.name!r} draws from {sorted(missing)}, but there are '
      f"responses from {sorted(responses)} alone; the student's need rows > 0"
    )


def _ended(response: types.Response, settings: Settings) -> jax.Array:
  eos = settings.sampling.get('eos_id')
  eos = settings.student.eos_ids if eos is None else eos
  is_eos = jnp.isin(response.tokens, jnp.atleast_1d(jnp.asarray(eos)))
  return jnp.any(is_eos & response.mask, -1)


def score(
  settings: Settings,
  teacher_params: api.Params,
  batch: types.Batch,
  views: tuple[types.Response, ...],
) -> tuple[jax.Array, ...]:
  """Returns the teacher's hidden states [B, T, D] on each view's responses."""
  prompts = batch.teacher_prompts or (batch.prompt,)
  return tuple(
    jax.lax.stop_gradient(
      settings.teacher.hidden_states(teacher_params, prompts[0], view.tokens)
    )
    for view in views
  )


def learn(
  settings: Settings,
  state: State,
  teacher_params: api.Params,
  batch: types.Batch,
  views: tuple[types.Response, ...],
  teacher_hidden: tuple[jax.Array, ...] | None,
) -> tuple[State, Metrics]:
  """Returns the next state and the step's metrics as (sum, count) pairs.

  Minimises `Σ_k w_k · sum_k / COUNT_k`, with the counts of the whole batch, so
  that micro-batches accumulate to exactly the same gradient. A step whose loss
  or gradient isn't finite changes nothing but the counters.
  """
  head = None
  if teacher_hidden is not None:
    head = settings.teacher.output_head(teacher_params)
  weights = {}
  for terms, view in zip(settings.objective.views(), views):
    for term in terms:
      total = objective.count(view, term.normalize)
      weight = objective.schedule(term.weight)(state.step)
      weights[term.name] = weight / jnp.maximum(total, 1)

  def loss_fn(params, micro, dropout_key):
    metrics = _forward(settings, params, head, micro, state.step, dropout_key)
    loss = sum(weights[name] * metrics[f'loss/{name}'][0] for name in weights)
    return loss, metrics

  micros = rows_lib.split(
    (batch.prompt, views, teacher_hidden), settings.micro_batch
  )
  key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _DROPOUT)
  loss, metrics, grads = _accumulate(
    loss_fn, state.params['student'], micros, key
  )
  norm = optax.tree.norm(grads)
  updates, opt_state = settings.optimizer.update(
    {'student': grads}, state.opt_state, state.params
  )
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  finite &= jnp.isfinite(optax.tree.norm(updates))
  params = optax.apply_updates(state.params, updates)

  def keep(new, old):
    return jnp.where(finite, new, old)

  state = dataclasses.replace(
    state,
    params=jax.tree.map(keep, params, state.params),
    opt_state=jax.tree.map(keep, opt_state, state.opt_state),
    step=state.step + 1,
    skipped=state.skipped + ~finite,
    consecutive_skipped=jnp.where(finite, 0, state.consecutive_skipped + 1),
  )
  metrics |= {'loss': (loss, 1), 'gradient_norm': (norm, 1)}
  # Nothing is counted of a skipped step, or its NaN would hide the others.
  metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
  metrics |= {
    'skipped': (state.skipped, 1),
    'consecutive_skipped': (state.consecutive_skipped, 1),
    'tokens': (sum(jnp.sum(view.mask) for view in views), 1),
  }
  return state, metrics


def _forward(
  settings: Settings,
  params: api.Params,
  teacher_head: api.Head | None,
  micro: Any,
  step: jax.Array,
  dropout_key: jax.Array,
) -> Metrics:
  """Returns every term's (sum, count) on one micro-batch."""
  prompt, views, teacher_hidden = micro
  model, n = settings.student, settings.num_tokens
  metrics = {}
  for i, (terms, view) in enumerate(zip(settings.objective.views(), views)):
    key = jax.random.fold_in(dropout_key, i)
    hidden = model.hidden_states(params, prompt, view.tokens, dropout_key=key)
    logits = model.head(params, hidden)[..., :n]
    teacher_logits = None
    if teacher_head is not None:
      teacher_logits = api.apply_head(teacher_head, teacher_hidden[i])[..., :n]
      metrics |= _divergences(settings, i, step, logits, teacher_logits, view)
    for term in terms:
      values = objective.values(term, step, logits, teacher_logits, view.tokens)
      metrics[f'loss/{term.name}'] = objective.reduce(
        values, view.mask, term.normalize
      )
  return metrics


def _divergences(
  settings: Settings, i: int, step, logits, teacher_logits, view
) -> Metrics:
  """Both KL divergences a token, measured every `measure_every` steps.

  Between measurements their counts are zero.
  """

  def measure():
    student = jax.lax.stop_gradient(logits)
    total = jnp.sum(view.mask).astype(jnp.float32)
    pairs = (
      losses.forward_kl(student, teacher_logits),
      losses.reverse_kl(student, teacher_logits),
    )
    return tuple((losses.masked_sum(v, view.mask), total) for v in pairs)

  nothing = ((jnp.float32(0), jnp.float32(0)),) * 2
  due = step % settings.measure_every == 0
  forward, reverse = jax.lax.cond(due, measure, lambda: nothing)
  suffix = f'_{i}' if len(settings.objective.views()) > 1 else ''
  return {f'forward_kl{suffix}': forward, f'reverse_kl{suffix}': reverse}


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


class Program:
  """The jitted step. Compiles once for each number of rollout rows."""

  def __init__(self, settings: Settings):
    """Raises ValueError where a loss reads a teacher that there isn't."""
    if settings.objective.needs_teacher and settings.teacher is None:
      names = [term.name for term in settings.objective.terms]
      raise ValueError(
        f'terms {names} need a teacher; settings.teacher is None'
      )
    self.settings = settings
    self._rollout = jax.jit(
      functools.partial(rollout, settings), static_argnames='rows'
    )
    self._score = jax.jit(functools.partial(score, settings))
    self._learn = None

  def rollout(self, state, batch, rows):
    """Jitted `rollout`, by the behaviour policy where there is one."""
    params = state.params['student']
    if state.behaviour is not None:
      params = state.behaviour
    return self._rollout(params, batch, state.step, state.key, rows=rows)

  def score(self, frozen, batch, views):
    """Jitted `score`; None where no loss reads the teacher."""
    if self.settings.teacher is None:
      return None
    return self._score(frozen['teacher'], batch, views)

  def learn(self, state, frozen, batch, views, hidden):
    """Jitted `learn`; takes the state over, returns the next sharded alike."""
    if self._learn is None:
      # Left to XLA, some arrays come back sharded otherwise, and the next step
      # is compiled anew.
      shardings = jax.tree.map(
        lambda x: x.sharding if getattr(x, 'committed', False) else None,
        state,
      )
      self._learn = jax.jit(
        functools.partial(learn, self.settings),
        donate_argnums=0,
        out_shardings=(shardings, None),
      )
    return self._learn(state, frozen.get('teacher'), batch, views, hidden)

  def update(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
  ) -> tuple[State, Metrics]:
    """One step: `(state, frozen, batch) -> (state, metrics)`.

    Args:
      state: taken over (donated).
      frozen: parameters by name: 'teacher' where a loss reads one.
      batch: on the devices, without references.
      rows: rollouts to sample, from `Objective.rollout_rows`.
    """
    views, metrics = self.rollout(state, batch, rows)
    hidden = self.score(frozen, batch, views)
    state, more = self.learn(state, frozen, batch, views, hidden)
    return state, {**metrics, **more}
