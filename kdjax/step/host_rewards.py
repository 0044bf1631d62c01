"""Rewards that the host computes: functions over texts."""

from collections.abc import Sequence

import jax
import numpy as np

from kdjax import rewards, types
from kdjax.step.rollout import of_task
from kdjax.step.score import Judged
from kdjax.step.settings import Settings


def judge(
  settings: Settings,
  batch: types.Batch,
  responses: tuple[types.Response, ...],
) -> tuple[Judged, ...]:
  """Returns the rewards over texts of each draw.

  Raises:
    ValueError: a reward isn't one finite number a response.
  """
  goal, found = settings.objective, []
  for draw, response in zip(goal.draws(), responses):
    names = sorted(goal.rewards(draw) & settings.host_rewards)
    part = of_task(batch, draw.task)
    found.append(_judge(settings, names, part, response) if names else {})
  return tuple(found)


def rehearse(
  settings: Settings,
  prompt: types.Prompt,
  response: types.Response,
  references: Sequence[Sequence[str]],
) -> None:
  """Calls the rewards of the caller's on a few responses.

  Raises:
    ValueError: one of them isn't one finite number a response.
  """
  batch = types.Batch(prompt, references=references or None)
  if settings.host_rewards:
    _judge(settings, sorted(settings.host_rewards), batch, response)
  for name, reward in settings.rewards.items():
    if isinstance(reward, rewards.Traced):
      values = np.asarray(reward.function(prompt, response))
      if not np.isfinite(values).all():
        raise ValueError(f'reward {name!r} gives {values}: it must be finite')


def _judge(
  settings: Settings,
  names: list[str],
  batch: types.Batch,
  response: types.Response,
) -> Judged:
  prompt, response = jax.device_get((batch.prompt, response))
  group = response.tokens.shape[0] // prompt.tokens.shape[0]

  def texts(tokens, mask):
    rows = zip(np.asarray(tokens), np.asarray(mask))
    return [settings.decode(row[kept].tolist()) for row, kept in rows]

  references = batch.references or [()] * prompt.tokens.shape[0]
  given = [x for x in texts(prompt.tokens, prompt.mask) for _ in range(group)]
  gold = [tuple(x) for x in references for _ in range(group)]
  said = texts(response.tokens, response.mask)
  return {
    name: rewards.judge(
      name,
      settings.rewards[name],
      given,
      said,
      gold,
      response.tokens.shape[1],
    )
    for name in names
  }
