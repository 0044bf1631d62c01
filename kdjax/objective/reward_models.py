"""Training a reward model: a language model with a scalar head."""

from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.objective import pairs
from kdjax.objective.loss import Loss
from kdjax.objective.readings import Reading, Target, View


def init_head(key: jax.Array, width: int) -> dict[str, jax.Array]:
  """Returns the parameters of a scalar head over D = `width`."""
  kernel = jax.random.normal(key, (width,)) * width**-0.5
  return {'kernel': kernel, 'bias': jnp.zeros(())}


def scores(head: Any, after: jax.Array) -> jax.Array:
  """Returns the score of each prefix, from hidden states [..., D] after it."""
  after = after.astype(jnp.float32)
  return after @ head['kernel'] + head['bias']


def _score(params: Any, reading: Reading) -> jax.Array:
  """Returns the score [R] of whole responses."""
  last = jnp.maximum(reading.mask.sum(-1) - 1, 0)
  each = scores(params, reading.after)
  return jnp.take_along_axis(each, last[:, None], 1)[:, 0]


def _rewarded(views: tuple[View, ...], *, reward: str, **unused) -> Target:
  (view,) = views
  mask = view.response.mask
  return Target(mask.any(-1), view.rewards[reward].sum(-1))


def _regression(readings, target, params):
  error = _score(params, readings[0]) - target.values
  return jnp.square(error), {'absolute_error': jnp.abs(error)}


def _bradley_terry(readings, target, params):
  chosen, rejected = (_score(params, reading) for reading in readings)
  right = (chosen > rejected).astype(jnp.float32)
  return losses.ranking(chosen, rejected), {'accuracy': right}


def _auxiliary(key, student, teacher):
  return init_head(key, student['after'].shape[-1])


LOSSES: dict[str, Loss] = {
  'reward_regression': Loss(
    _regression,
    needs={'reward', 'after'},
    target=_rewarded,
    auxiliary=_auxiliary,
  ),
  'bradley_terry': Loss(
    _bradley_terry,
    needs={'after'},
    pair=True,
    target=pairs.target,
    auxiliary=_auxiliary,
  ),
}
