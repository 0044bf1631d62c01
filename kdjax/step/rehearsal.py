"""A step traced but not run, so that what cannot work is reported early."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.step import replay
from kdjax.step.learn import term_weights, total_loss
from kdjax.step.rollout import of_task, rollout
from kdjax.step.score import score
from kdjax.step.settings import Settings


def rehearse(
  settings: Settings,
  params: Mapping[str, Any],
  frozen: Mapping[str, Any],
  batch: types.Batch,
  rows: int,
) -> None:
  """Traces a step; see `Program.rehearse`."""
  goal, length = settings.objective, settings.max_new_tokens

  def once(params, frozen, batch):
    step, key = jnp.int32(0), jax.random.key(0)
    teacher, student = frozen.get('teacher'), params['student']
    asked = batch, step, key, rows
    responses, _ = rollout(settings, student, teacher, *asked)
    memories = tuple(
      replay.memory(max(rows, 1), of_task(batch, task), length)
      for task in goal.replayed()
    )
    given = memories, batch, responses, step, key, rows
    _, responses, _ = replay.recall(settings, *given)
    judged = tuple(
      {
        name: jnp.zeros(response.tokens.shape[:1])
        for name in goal.rewards(draw) & settings.host_rewards
      }
      for draw, response in zip(goal.draws(), responses)
    )
    given = params['student'], frozen, batch, responses, judged, step
    scored, _ = score(settings, *given)
    weights = term_weights(settings, scored, step)
    return total_loss(settings, params, teacher, scored, weights, step, key)

  jax.eval_shape(once, dict(params), dict(frozen), batch)
