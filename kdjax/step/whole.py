"""A whole step as one function: what one dispatch runs."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api
from kdjax.state import State
from kdjax.step.learn import Scored, learn
from kdjax.step.replay import recall
from kdjax.step.rollout import rollout
from kdjax.step.score import Judged, score
from kdjax.step.settings import Metrics, Settings


def whole(
  settings: Settings,
  parts: int,
  state: State,
  frozen: Mapping[str, Any],
  batch: types.Batch,
  following: types.Batch | None,
  rows: int,
) -> tuple[State, Metrics]:
  """Returns the next state and the step's metrics; see `Program.update`."""
  ahead = state.pending_rollout is not None
  asked, step = (following, state.step + 1) if ahead else (batch, state.step)
  with jax.named_scope('rollout'):
    sampled = rollout(
      settings,
      policy(state),
      frozen.get('teacher'),
      asked,
      step,
      state.key,
      rows,
    )
  (responses, metrics), waits = sampled, None
  if ahead:
    (responses, metrics), waits = state.pending_rollout, sampled
    state = dataclasses.replace(state, pending_rollout=None)
  with jax.named_scope('recall'):
    given = state.replay, batch, responses, state.step, state.key
    memories, responses, recalled = recall(settings, *given, rows)
  state = dataclasses.replace(state, replay=memories)
  state, found = update(settings, parts, state, frozen, batch, responses)
  state = dataclasses.replace(state, pending_rollout=waits)
  return state, {**metrics, **recalled, **found}


def update(
  settings: Settings,
  parts: int,
  state: State,
  frozen: Mapping[str, Any],
  batch: types.Batch,
  responses: tuple[types.Response, ...],
  judged: tuple[Judged, ...] | None = None,
) -> tuple[State, Metrics]:
  """Returns the next state and the metrics: what a step does after a rollout.

  Args:
    settings: of the step.
    parts: micro-batches.
    state: before the step.
    frozen: parameters by name.
    batch: prompts.
    responses: of each draw, from `rollout`.
    judged: rewards of the caller's, for each draw.
  """
  with jax.named_scope('score'):
    scored, metrics = score(
      settings,
      state.params['student'],
      frozen,
      batch,
      responses,
      judged or ({},) * len(responses),
      state.step,
    )
  with jax.named_scope('learn'):
    state, found = _updates(settings, parts, state, frozen, scored)
  return state, {**metrics, **found}


def policy(state: State) -> api.Params:
  """Returns the parameters that rollouts are sampled with."""
  own = state.params['student']
  return own if state.behaviour is None else state.behaviour


def total(metrics: list[Metrics]) -> Metrics:
  """Returns what several updates add up to; of counters, the last."""
  latest = {k: metrics[-1][k] for k in ('skipped', 'consecutive_skipped')}
  return jax.tree.map(lambda *x: sum(x[1:], x[0]), *metrics) | latest


def _updates(
  settings: Settings,
  parts: int,
  state: State,
  frozen: Mapping[str, Any],
  scored: Scored,
) -> tuple[State, Metrics]:
  """All updates on one batch of responses, compiled once."""
  teacher, count = frozen.get('teacher'), settings.updates_per_rollout
  if count == 1:
    return learn(settings, state, teacher, scored, parts)

  def body(state, update):
    return learn(settings, state, teacher, scored, parts, update)

  state, found = jax.lax.scan(body, state, jnp.arange(count))
  each = [jax.tree.map(operator.itemgetter(i), found) for i in range(count)]
  return state, total(each)
