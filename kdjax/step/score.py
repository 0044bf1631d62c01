"""Responses to what frozen models and rewards say of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import objective, rewards, types
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
    part = of_task(batch, draw.task)
    view = _view(settings, models, part, draw, response, found)
    views[draw.key] = view
    for name in sorted(goal.rewards(draw) - {'teacher_baseline'}):
      if draw.sampled != 'greedy':
        rows = jnp.sum(jnp.any(view.response.mask, -1))
        metrics[f'reward/{name}'] = jnp.sum(view.rewards[name]), rows
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
  teacher_prompts = tuple(map(repeated, batch.teacher_prompts or ()))
  teacher_prompts = teacher_prompts or (prompt,)
  found = {k: model_rewards.spread(v, response.mask) for k, v in judged.items()}
  for name in sorted(names & set(settings.rewards)):
    reward = settings.rewards[name]
    if isinstance(reward, rewards.Traced):
      value = reward.function(prompt, response)
      found[name] = model_rewards.spread(value, response.mask)
  if own := names & set(objective.REWARDS):
    parts = settings.micro_batches(batch)
    found |= _in_parts(
      settings, models, sorted(own), prompt, teacher_prompts, response, parts
    )
  view = objective.View(
    prompt, response, ended(response, settings), rewards=found
  )
  if 'teacher' in needs:
    view = _taught(settings, models['teacher'], view, teacher_prompts[0], needs)
  if 'reference' in needs:
    logits = _logits(settings, 'reference', models, prompt, response)
    logprobs = objective.label_logprobs(logits, response)
    view = dataclasses.replace(view, reference_logprobs=logprobs)
  return view


def _taught(
  settings: Settings,
  params: api.Params,
  view: objective.View,
  prompt: types.Prompt,
  needs: set[str],
) -> objective.View:
  """Adds the teacher's hidden states, and the layers that losses match."""
  hidden, layers = forward(
    settings.teacher, params, prompt, view.response.tokens, needs
  )
  return dataclasses.replace(view, teacher=hidden, teacher_layers=layers)


def _in_parts(
  settings: Settings,
  models: Mapping[str, Any],
  names: Sequence[str],
  prompt: types.Prompt,
  teacher_prompts: tuple[types.Prompt, ...],
  response: types.Response,
  parts: int,
) -> dict[str, jax.Array]:
  """Rewards by models, as many rows at a time as the gradient takes.

  Logits [R, T, V] of all rows would be the largest array of the step.
  """

  def judge(micro):
    prompt, prompts, response = micro
    # Several prompts of the teacher's: the mean of what each would give.
    each = [
      _rewards(settings, models, names, prompt, mine, response)
      for mine in prompts
    ]
    return jax.tree.map(lambda *x: sum(x) / len(x), *each)

  parts = rows_lib.split((prompt, teacher_prompts, response), parts)
  return rows_lib.join(jax.lax.map(judge, parts))


def _rewards(settings, models, names, prompt, teacher_prompt, response):
  """Returns the rewards [r, T] by name, under one of the teacher's prompts."""
  needs = set().union(*(objective.REWARDS[name].needs for name in names))
  evidence = objective.Evidence(
    response,
    _logits(settings, 'teacher', models, teacher_prompt, response)
    if 'teacher' in needs
    else None,
    _logits(settings, 'student', models, prompt, response)
    if 'student' in needs
    else None,
    _scores(settings, models['reward'], prompt, response)
    if 'reward' in needs
    else None,
  )
  return {name: objective.REWARDS[name].values(evidence) for name in names}


def _logits(settings, role, models, prompt, response) -> jax.Array:
  model = settings.teacher if role == 'teacher' else settings.student
  hidden = model.hidden_states(models[role], prompt, response.tokens)
  return model.head(models[role], hidden)[..., : settings.num_tokens]


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
