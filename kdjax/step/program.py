"""The jitted step, and the host's part of it."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import rewards, types
from kdjax.models import api
from kdjax.state import State
from kdjax.step.learn import Scored, learn, term_weights, terms
from kdjax.step.rollout import of_task, rollout
from kdjax.step.score import Judged, score
from kdjax.step.settings import Metrics, Settings

# Runs a phase of a step; a trainer may time it.
Around = Callable[[str, Callable[[], Any]], Any]


class Program:
  """The jitted step. Compiles once for each number of rollout rows."""

  def __init__(self, settings: Settings):
    """Raises ValueError where a loss reads a model that there isn't."""
    _check(settings)
    self.settings = settings
    self._rollout = jax.jit(
      functools.partial(rollout, settings), static_argnames='rows'
    )
    self._score = jax.jit(functools.partial(score, settings))
    self._learn = None

  def rollout(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
  ) -> tuple[tuple[types.Response, ...], Metrics]:
    """Jitted `rollout`, by the behaviour policy where there is one."""
    params = state.params['student']
    if state.behaviour is not None:
      params = state.behaviour
    teacher = frozen.get('teacher') if _samples_teacher(self.settings) else None
    return self._rollout(
      params, teacher, _bare(batch), state.step, state.key, rows=rows
    )

  def judge(
    self, batch: types.Batch, responses: tuple[types.Response, ...]
  ) -> tuple[Judged, ...]:
    """Returns the rewards over texts, which the host computes.

    Raises:
      ValueError: a reward isn't one finite number a response.
    """
    goal, found = self.settings.objective, []
    for draw, response in zip(goal.draws(), responses):
      names = sorted(goal.rewards(draw) & self.settings.host_rewards)
      part = of_task(batch, draw.task)
      found.append(self._judge(names, part, response) if names else {})
    return tuple(found)

  def try_rewards(
    self,
    prompt: types.Prompt,
    response: types.Response,
    references: Sequence[Sequence[str]],
  ) -> None:
    """Calls the rewards of the caller's on a few responses.

    Raises:
      ValueError: one of them isn't one finite number a response.
    """
    batch = types.Batch(prompt, references=references or None)
    if self.settings.host_rewards:
      self._judge(sorted(self.settings.host_rewards), batch, response)
    for name, reward in self.settings.rewards.items():
      if isinstance(reward, rewards.Traced):
        values = np.asarray(reward.function(prompt, response))
        if not np.isfinite(values).all():
          raise ValueError(f'reward {name!r} gives {values}: it must be finite')

  def _judge(
    self, names: list[str], batch: types.Batch, response: types.Response
  ) -> Judged:
    prompt, response = jax.device_get((batch.prompt, response))
    group = response.tokens.shape[0] // prompt.tokens.shape[0]

    def texts(tokens, mask):
      rows = zip(np.asarray(tokens), np.asarray(mask))
      return [self.settings.decode(row[kept].tolist()) for row, kept in rows]

    references = batch.references or [()] * prompt.tokens.shape[0]
    given = [x for x in texts(prompt.tokens, prompt.mask) for _ in range(group)]
    gold = [tuple(x) for x in references for _ in range(group)]
    said = texts(response.tokens, response.mask)
    return {
      name: rewards.judge(
        name,
        self.settings.rewards[name],
        given,
        said,
        gold,
        response.tokens.shape[1],
      )
      for name in names
    }

  def score(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    responses: tuple[types.Response, ...],
    judged: tuple[Judged, ...] | None = None,
  ) -> tuple[Scored, Metrics]:
    """Jitted `score`."""
    judged = judged or ({},) * len(responses)
    return self._score(
      state.params['student'],
      self._models(frozen),
      _bare(batch),
      responses,
      judged,
      state.step,
    )

  def learn(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    scored: Scored,
    parts: int = 1,
    update: int = 0,
  ) -> tuple[State, Metrics]:
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
        static_argnames='parts',
        donate_argnums=0,
        out_shardings=(shardings, None),
      )
    teacher = frozen.get('teacher')
    return self._learn(state, teacher, scored, parts=parts, update=update)

  def update(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
    around: Around = lambda phase, run: run(),
  ) -> tuple[State, Metrics]:
    """One step: `(state, frozen, batch) -> (state, metrics)`.

    Args:
      state: taken over (donated).
      frozen: parameters by name: 'teacher', 'reference' and 'reward', where a
        loss reads them.
      batch: on the devices; references, where a reward reads them, on the host.
      rows: rollouts to sample, from `Objective.rollout_rows`.
      around: called with the name of each phase and a function that runs it.
    """
    parts = self.settings.micro_batches(batch)
    responses, metrics = around(
      'rollout', lambda: self.rollout(state, frozen, batch, rows)
    )
    judged = around('reward', lambda: self.judge(batch, responses))
    scored, more = around(
      'teacher', lambda: self.score(state, frozen, batch, responses, judged)
    )
    metrics |= more
    state, found = around(
      'update', lambda: self._updates(state, frozen, scored, parts)
    )
    return state, metrics | found

  def rehearse(
    self,
    params: Mapping[str, Any],
    frozen: Mapping[str, Any],
    batch: types.Batch,
    rows: int,
  ) -> None:
    """Traces a step without running it, so that what cannot be is said early.

    Args:
      params: 'student', and the auxiliary parameters of terms; shapes are read.
      frozen: as for `update`.
      batch: as for `update`.
      rows: as for `update`.

    Raises:
      ValueError: the models, responses and rewards don't fit the terms.
    """
    settings, bare = self.settings, _bare(batch)
    step, key = jnp.int32(0), jax.random.key(0)
    teacher = frozen.get('teacher') if _samples_teacher(settings) else None
    responses, _ = self._rollout.eval_shape(
      params['student'], teacher, bare, step, key, rows=rows
    )
    judged = [
      {
        name: jax.ShapeDtypeStruct(response.tokens.shape[:1], jnp.float32)
        for name in settings.objective.rewards(draw) & settings.host_rewards
      }
      for draw, response in zip(settings.objective.draws(), responses)
    ]
    scored, _ = self._score.eval_shape(
      params['student'],
      self._models(frozen),
      bare,
      responses,
      tuple(judged),
      step,
    )
    params, teacher = dict(params), frozen.get('teacher')

    def loss(params, teacher, scored):
      weights = term_weights(settings, scored, step)
      return terms(settings, params, teacher, scored, weights, step, key)

    jax.eval_shape(loss, params, teacher, scored)

  def _models(self, frozen: Mapping[str, Any]) -> dict[str, Any]:
    names = self.settings.objective.models()
    return {k: v for k, v in frozen.items() if k in names}

  def _updates(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    scored: Scored,
    parts: int,
  ) -> tuple[State, Metrics]:
    """All updates on one batch of responses; sums of their metrics."""
    total = None
    for update in range(self.settings.updates_per_rollout):
      state, found = self.learn(state, frozen, scored, parts, update)
      latest = {k: found.pop(k) for k in ('skipped', 'consecutive_skipped')}
      total = jax.tree.map(operator.add, total, found) if total else found
    return state, total | latest


def _bare(batch: types.Batch) -> types.Batch:
  """The batch without what stays on the host."""
  tasks = {name: _bare(part) for name, part in batch.tasks.items()}
  return dataclasses.replace(batch, references=None, tasks=tasks)


def _samples_teacher(settings: Settings) -> bool:
  online = 'teacher' in settings.objective.sources()
  online &= settings.teacher_sampling is not None
  return online or settings.teacher_mix > 0


def _check(settings: Settings) -> None:
  goal = settings.objective
  names = [term.name for term in goal.terms]
  reads = goal.models()
  if _samples_teacher(settings):
    reads = reads | {'teacher'}
  if 'teacher' in reads and settings.teacher is None:
    raise ValueError(f'terms {names} need a teacher; settings.teacher is None')
  if 'reward' in reads and settings.reward_model is None:
    raise ValueError(
      f'terms {names} need a reward model; settings.reward_model is None'
    )
  unknown = sorted(goal.foreign_rewards() - set(settings.rewards))
  if unknown:
    raise ValueError(
      f'terms {names} maximise {unknown}, which settings.rewards does not '
      f'define (it has {sorted(settings.rewards)})'
    )
  if settings.host_rewards and settings.decode is None:
    raise ValueError(
      f'rewards {sorted(settings.host_rewards)} read texts: give '
      'settings.decode, which turns tokens into text'
    )
