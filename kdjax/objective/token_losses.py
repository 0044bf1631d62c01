"""Losses of single tokens: divergences, cross-entropies, entropies."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax import losses, types
from kdjax.objective.loss import Loss
from kdjax.objective.specs import Option

# What is not a share between 0 and 1.
_RANGES = {'temperature': {'above': 0.0}}
_DPKD = {'beta': Option(0.1, above=0.0)}


def _soft(fn: Callable[..., jax.Array], args=None, top_k=False) -> Loss:
  """A loss against the teacher's distribution, with the function's options."""
  parameters = list(inspect.signature(fn).parameters.values())[2:]
  shares = {'low': 0.0, 'high': 1.0}
  options = {
    option.name: Option(option.default, **_RANGES.get(option.name, shares))
    for option in parameters
  }

  def values(readings, target, params, **args):
    (reading,) = readings
    return fn(reading.logits, reading.teacher_logits, **args)

  options = options if args is None else args
  return Loss(values, options, needs={'teacher'}, top_k=top_k, tokenwise=True)


def _student(fn: Callable[..., jax.Array]) -> Loss:
  """A loss of the student's distribution alone."""
  return Loss(lambda readings, *_: fn(readings[0].logits), tokenwise=True)


def _cross_entropy(readings, target, params):
  return losses.cross_entropy(
    readings[0].logits, readings[0].view.response.tokens
  )


def _argmax_cross_entropy(student_logits, teacher_logits):
  if isinstance(teacher_logits, types.TopK):
    best = teacher_logits.ids[..., 0]
  else:
    best = jnp.argmax(jax.lax.stop_gradient(teacher_logits), -1)
  return losses.cross_entropy(student_logits, best)


def _mixture_weights(reading):
  """The exact weight of the teacher in the mixture of each step."""

  def ratio(reading):
    tokens = reading.view.response.tokens
    return losses.label_log_ratio(
      reading.logits, reading.teacher_logits, tokens
    )

  return losses.prefix_weights(reading.each(ratio), reading.mask)


def _exact_forward(readings, target, params):
  (reading,) = readings

  def value(reading, alpha):
    return losses.skew_forward_kl(
      reading.logits, reading.teacher_logits, alpha=alpha
    )

  return reading.each(value, alpha=_mixture_weights(reading))


def _exact_reverse(readings, target, params):
  (reading,) = readings

  def value(reading, alpha):
    return losses.skew_reverse_kl(
      reading.logits, reading.teacher_logits, alpha=alpha
    )

  return reading.each(value, alpha=1.0 - _mixture_weights(reading))


def _kl_estimate(readings, target, params):
  (r,) = readings
  return losses.kl_estimate(r.logprobs, r.view.reference_logprobs)


LOSSES: dict[str, Loss] = {
  **{name: _soft(fn, top_k=True) for name, fn in losses.DIVERGENCES.items()},
  'soft_cross_entropy': _soft(losses.soft_cross_entropy, top_k=True),
  'engine': _soft(losses.engine),
  'dpkd_token': _soft(losses.dpkd_token, _DPKD),
  'cross_entropy': Loss(_cross_entropy, tokenwise=True),
  'argmax_cross_entropy': _soft(_argmax_cross_entropy, top_k=True),
  'exact_skew_forward_kl': Loss(_exact_forward, needs={'teacher'}),
  'exact_skew_reverse_kl': Loss(_exact_reverse, needs={'teacher'}),
  'negative_entropy': _student(lambda logits: -losses.entropy(logits)),
  'uniform_cross_entropy': _student(losses.uniform_cross_entropy),
  'kl_estimate': Loss(_kl_estimate, needs={'reference'}, tokenwise=True),
}
