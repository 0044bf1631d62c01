"""Rewards that the host computes: functions over texts."""

from collections.abc import Sequence

import jax
import numpy as np

from kdjax import distributed, rewards, types
from kdjax.step.rollout import of_task, row_ids
from kdjax.step.score import Judged
from kdjax.step.settings import Settings


def judge(
  settings: Settings,
  batch: types.Batch,
  responses: tuple[types.Response, ...],
) -> tuple[Judged, ...]:
  """Returns the rewards over texts of each draw.

  Each process judges the rows that it holds, and all have the rewards of all.

  Raises:
    ValueError: a reward isn't one finite number a response.
  """
  goal, found = settings.objective, []
  for draw, response in zip(goal.draws(), responses):
    names = sorted(goal.rewards(draw) & settings.host_rewards)
    part = of_task(batch, draw.task)
    judged = _judge(settings, names, part, response) if names else {}
    found.append(
      {
        name: distributed.merge(values, like=part.prompt.tokens)
        for name, values in judged.items()
      }
    )
  return tuple(found)


def rehearse(
  settings: Settings,
  prompt: types.Prompt,
  response: types.Response,
  references: Sequence[Sequence[str]],
  example_id: jax.Array | None = None,
) -> None:
  """Calls the rewards of the caller's on a few responses.

  Raises:
    ValueError: one of them isn't one finite number a response.
  """
  batch = types.Batch(
    prompt, example_id=example_id, references=references or None
  )
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
  """Returns the rewards of the rows that this process holds."""
  prompt, here = batch.prompt, distributed.rows(batch.prompt.tokens)
  group = response.tokens.shape[0] // prompt.tokens.shape[0]
  asked, said, ids = distributed.fetch(
    (
      (prompt.tokens, prompt.mask),
      (response.tokens, response.mask),
      row_ids(batch),
    )
  )

  def texts(tokens, mask, rows):
    return [settings.decode(tokens[i][mask[i]].tolist()) for i in rows]

  references = batch.references or [()] * len(here)
  samples = np.add.outer(here * group, np.arange(group)).ravel()
  given = [x for x in texts(*asked, here) for _ in range(group)]
  gold = [tuple(x) for x in references for _ in range(group)]
  spoken = texts(*said, samples)
  return {
    name: rewards.judge(
      name,
      settings.rewards[name],
      given,
      spoken,
      gold,
      response.tokens.shape[1],
      np.repeat(ids[here], group),
    )
    for name in names
  }
