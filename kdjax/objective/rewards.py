"""Rewards that models give to responses, one a token.

Any other name in a term is a reward of the caller's (`step.Settings.rewards`):
a function over texts, or a traced one.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses, types

# Applies a function of single tokens, (logits [..., V], tokens [...]) -> values
# [...], to what a model makes of a response: values [R, T], a tree of them.
Each = Callable[[Callable[[jax.Array, jax.Array], Any]], Any]


class Evidence(NamedTuple):
  """What a model's reward is computed from.

  Attributes:
    response: [R, T].
    teacher: reads the teacher's logits, under one of its prompts; or None.
    student: reads the policy's, as it stands; or None.
    scores: [R, T] the reward model's score of each prefix y_1 .. y_t, or None.
  """

  response: types.Response
  teacher: Each | None = None
  student: Each | None = None
  scores: Any = None


@dataclasses.dataclass(frozen=True)
class Reward:
  """How a reward [R, T] is computed.

  Attributes:
    values: from the evidence.
    needs: which models it reads, of 'teacher', 'student' and 'reward'.
  """

  values: Callable[[Evidence], jax.Array]
  needs: Collection[str]


def _induced(value: str) -> Callable[[Evidence], jax.Array]:
  state_action = functools.partial(losses.action_values, value=value)

  def values(e):
    return losses.bellman_reward(*e.teacher(state_action), e.response.mask)

  return values


def _logprobs(each: Each, e: Evidence) -> jax.Array:
  found = each(lambda logits, tokens: -losses.cross_entropy(logits, tokens))
  return jnp.where(e.response.mask, found, 0.0)


def _teacher_logprob(e: Evidence) -> jax.Array:
  return _logprobs(e.teacher, e)


def _teacher_mean_logprob(e: Evidence) -> jax.Array:
  lengths = jnp.maximum(e.response.mask.sum(-1, keepdims=True), 1)
  return _teacher_logprob(e) / lengths


def _reverse_kl(e: Evidence) -> jax.Array:
  student = _logprobs(e.student, e)
  return losses.reverse_kl_reward(_teacher_logprob(e), student, e.response.mask)


def _learned(e: Evidence) -> jax.Array:
  """Each token's part of the reward model's score of the whole response."""
  before = jnp.pad(e.scores, ((0, 0), (1, 0)))[:, :-1]
  return jnp.where(e.response.mask, e.scores - before, 0.0)


def _baseline(e: Evidence) -> jax.Array:
  values = e.teacher(lambda logits, tokens: losses.teacher_baseline(logits))
  return jnp.where(e.response.mask, values, 0.0)


REWARDS: dict[str, Reward] = {
  # What the teacher's logits imply, if they are optimal action values.
  'induced': Reward(_induced('max'), {'teacher'}),
  'induced_soft': Reward(_induced('expectation'), {'teacher'}),
  # ENGINE by REINFORCE.
  'teacher_logprob': Reward(_teacher_logprob, {'teacher'}),
  # Adds up to its mean over the response.
  'teacher_mean_logprob': Reward(_teacher_mean_logprob, {'teacher'}),
  # Minimises KL(q || p) of whole responses (MiniLLM).
  'reverse_kl': Reward(_reverse_kl, {'teacher', 'student'}),
  # Of the frozen reward model.
  'learned': Reward(_learned, {'reward'}),
  # Not a reward: what some policy gradients subtract.
  'teacher_baseline': Reward(_baseline, {'teacher'}),
}


def spread(rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns rewards [R] of whole responses as [R, T], at the last token.

  What is [R, T] already is only masked.

  Raises:
    ValueError: for any other shape.
  """
  if rewards.shape not in (mask.shape[:1], mask.shape):
    raise ValueError(
      f'a reward has the shape {rewards.shape}; it must be {mask.shape[:1]}, '
      f'one number a response, or {mask.shape}'
    )
  if rewards.ndim == 1:
    rewards = jnp.where(mask, rewards[:, None], 0.0)
    last = mask & ~jnp.pad(mask, ((0, 0), (0, 1)))[:, 1:]
    return jnp.where(last, rewards, 0.0)
  return jnp.where(mask, rewards, 0.0)
