"""Responses to what frozen models and rewards say of them."""

import dataclasses
import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses, nonfinite, objective, rewards, types
from kdjax import rows as rows_lib
from kdjax.models import api
from kdjax.objective import reward_models
from kdjax.objective import rewards as model_rewards
from kdjax.step.learn import Scored, forward
from kdjax.step.rollout import ended, of_task
from kdjax.step.settings import Metrics, Settings

# The rewards [R] or [R, T] of one draw, by name.
Judged = Mapping[str, jax.Array]


def score(
  settings: Settings,
  params: api.Params,
  frozen: Mapping[str, Any],
  batch: types.Batch,
  responses: tuple[types.Response, ...],
  judged: tuple[Judged, ...],
  step: jax.Array,
) -> tuple[Scored, Metrics]:
  """Returns what the losses read, constant to the gradient.

  Args:
    settings: of the step.
    params: the student's, for rewards that read it.
    frozen: parameters by name: 'teacher', 'reference', 'reward'.
    batch: prompts.
    responses: of each draw.
    judged: rewards of the caller's, for each draw.
    step: [] int32, for scheduled arguments.
  """
  goal, views, metrics = settings.objective, {}, {}
  models = {**frozen, 'student': params}
  for draw, response, found in zip(goal.draws(), responses, judged):
    part = response.asked or of_task(batch, draw.task)
    said = dataclasses.replace(response, asked=None)
    view = _view(settings, models, part, draw, said, found)
    views[draw.key] = view
    for name in sorted(goal.rewards(draw) - {'teacher_baseline'}):
      values = view.rewards[name]
      finite = ~jnp.isnan(values).any(-1)
      if part.example_id is not None and name not in settings.host_rewards:
        before = metrics.get(f'{nonfinite.REWARD}{name}', (-1, 1))[0]
        bad = jnp.maximum(before, _first(~finite, part.example_id))
        metrics[f'{nonfinite.REWARD}{name}'] = bad, 1
      if draw.sampled != 'greedy':
        rows = jnp.sum(jnp.any(view.response.mask, -1) & finite)
        more = jnp.sum(jnp.where(finite[:, None], values, 0.0)), rows
        sums = metrics.get(f'reward/{name}', (0.0, 0))
        metrics[f'reward/{name}'] = jax.tree.map(operator.add, sums, more)
  for draw in goal.views():
    if draw.rank:
      views[draw.key] = _ranked(settings, draw, views[draw.unranked.key])
  targets = {
    term.name: _target(settings, term, views, step) for term in goal.terms
  }
  kept = tuple(
    dataclasses.replace(views[draw.key], rewards=None) for draw in goal.views()
  )
  return jax.lax.stop_gradient(Scored(kept, targets)), metrics


def _first(bad: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns the id of the first example with a bad sample [R], or -1."""
  group = bad.shape[0] // ids.shape[0]
  at = jnp.argmax(bad) // group
  return jnp.where(jnp.any(bad), ids[at], -1).astype(jnp.int32)


def _view(
  settings: Settings,
  models: Mapping[str, Any],
  batch: types.Batch,
  draw: objective.Draw,
  response: types.Response,
  judged: Judged,
) -> objective.View:
  """Returns everything about one draw's responses."""
  goal = settings.objective
  needs, names = goal.needs(draw), goal.rewards(draw)
  group = response.tokens.shape[0] // batch.prompt.tokens.shape[0]

  def repeated(prompt):
    return jax.tree.map(lambda x: jnp.repeat(x, group, 0), prompt)

  prompt = repeated(batch.prompt)
  view = objective.View(prompt, response, ended(response, settings))
  own = sorted(names & set(objective.REWARDS))
  judges = set().union(*(objective.REWARDS[name].needs for name in own))
  hidden: list[jax.Array] = []
  if 'teacher' in needs | judges:
    # Rewards are averaged over the teacher's prompts; losses read the first.
    prompts = batch.read_by_teacher
    for each in map(repeated, prompts if 'teacher' in judges else prompts[:1]):
      wanted = () if hidden else needs
      state, layers = forward(
        settings.teacher, models['teacher'], each, response.tokens, wanted
      )
      hidden.append(state)
      if wanted and 'teacher' in needs:
        view = dataclasses.replace(view, teacher=state, teacher_layers=layers)
  found = dict(judged)
  for name in sorted(names & set(settings.rewards)):
    reward = settings.rewards[name]
    if isinstance(reward, rewards.Traced):
      found[name] = reward.function(prompt, response)
  # Losses bound what is infinite, and would learn from it; NaN is skipped.
  found = {k: jnp.where(jnp.isfinite(v), v, jnp.nan) for k, v in found.items()}
  found = {k: model_rewards.spread(v, response.mask) for k, v in found.items()}
  reference = None
  if own or 'reference' in needs:
    parts = settings.micro_batches(batch)
    micros = rows_lib.split((prompt, tuple(hidden), response), parts)
    reads = judges | (needs & {'reference'})
    judge = functools.partial(_judge, settings, models, own, reads)
    more, reference = rows_lib.join(jax.lax.map(judge, micros))
    # Models may give -inf: to what the teacher would never say.
    found |= {k: jnp.where(v == jnp.inf, jnp.nan, v) for k, v in more.items()}
  return dataclasses.replace(view, rewards=found, reference_logprobs=reference)


def _judge(
  settings: Settings,
  models: Mapping[str, Any],
  names: Sequence[str],
  needs: Collection[str],
  micro: tuple[types.Prompt, tuple[jax.Array, ...], types.Response],
) -> tuple[dict[str, jax.Array], jax.Array | None]:
  """Returns the models' rewards [r, T] by name, of one micro-batch.

  Where the teacher has several prompts, the mean of what each would give. And
  the reference's log-probabilities [r, T], or None.
  """
  prompt, hidden, response = micro
  student = scores = reference = None
  if 'reference' in needs:
    each = _each_of(settings, models['reference'], prompt, response)
    reference = each(lambda logits, y: -losses.cross_entropy(logits, y))
  if 'student' in needs:
    student = _each_of(settings, models['student'], prompt, response)
  if 'reward' in needs:
    scores = _scores(settings, models['reward'], prompt, response)
  found = []
  for state in hidden or (None,):
    teacher = None
    if state is not None:
      head = settings.teacher.output_head(models['teacher'])
      teacher = _each(settings, state, head, response)
    evidence = objective.Evidence(response, teacher, student, scores)
    found.append({n: objective.REWARDS[n].values(evidence) for n in names})
  return jax.tree.map(lambda *x: sum(x) / len(x), *found), reference


def _each_of(settings, params, prompt, response) -> model_rewards.Each:
  """Runs a model of the student's architecture over responses."""
  model = settings.student
  hidden = model.hidden_states(params, prompt, response.tokens)
  return _each(settings, hidden, model.output_head(params), response)


def _each(settings, hidden, head, response) -> model_rewards.Each:
  return functools.partial(
    losses.chunked_values,
    student_hidden=hidden,
    student_head=head.first(settings.num_tokens),
    labels=response.tokens,
    mask=response.mask,
    chunk_size=settings.chunk_size,
    batch_axes=types.BATCH_AXES,
  )


def _scores(settings, params, prompt, response) -> jax.Array:
  """Returns the reward model's score of each prefix y_1 .. y_t, [r, T]."""
  tokens = jnp.pad(response.tokens, ((0, 0), (0, 1)))
  hidden = settings.reward_model.hidden_states(params['model'], prompt, tokens)
  return reward_models.scores(params['head'], hidden[:, 1:])


def _ranked(
  settings: Settings, draw: objective.Draw, view: objective.View
) -> objective.View:
  """Returns the best or the worst of each prompt's samples."""
  totals = view.rewards[draw.by].sum(-1).reshape(-1, settings.samples)
  choose = jnp.argmax if draw.rank == 'best' else jnp.argmin
  start = jnp.arange(totals.shape[0]) * settings.samples
  rows = start + choose(totals, -1)
  return jax.tree.map(lambda x: x[rows], view)


def _target(
  settings: Settings,
  term: objective.Term,
  views: Mapping[str, objective.View],
  step: jax.Array,
) -> objective.Target:
  draws = term.draws() + term.baselines()
  read = tuple(views[draw.key] for draw in draws)
  target = objective.LOSSES[term.loss].target(
    read, reward=term.reward, group=settings.samples, **term.args(step)
  )
  if term.finished_only:
    ends = read[0].ended
    for view in read[1 : len(term.draws())]:
      ends &= view.ended
    mask = target.mask & ends.reshape(-1, *[1] * (target.mask.ndim - 1))
    target = dataclasses.replace(target, mask=mask)
  return target
