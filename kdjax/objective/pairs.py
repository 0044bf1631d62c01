"""Preferences: losses of two responses to each prompt, one value a pair."""

from typing import Any

import jax.numpy as jnp

from kdjax import losses
from kdjax.objective.loss import Loss
from kdjax.objective.readings import Reading, Target, View
from kdjax.objective.specs import Option

_BETA = {'beta': Option(0.1, above=0.0)}
_NORMALIZED = {'length_normalized': Option(False)}


def target(views: tuple[View, ...], **unused: Any) -> Target:
  """The pairs count whose responses both hold tokens, and not the same ones."""
  chosen, rejected = (view.response for view in views)
  width = max(chosen.mask.shape[1], rejected.mask.shape[1])

  def widen(x):
    return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))

  alike = widen(chosen.mask) == widen(rejected.mask)
  same = widen(chosen.tokens) == widen(rejected.tokens)
  alike &= same | ~widen(chosen.mask)
  held = chosen.mask.any(-1) & rejected.mask.any(-1)
  return Target(held & ~alike.all(-1))


def _sums(readings: tuple[Reading, ...]) -> tuple:
  """Returns log q(y) of the chosen and of the rejected responses, [R] each."""
  return tuple(r.logprobs.sum(-1) for r in readings)


def _references(readings: tuple[Reading, ...], reference: str) -> tuple:
  if reference == 'teacher':
    return tuple(r.teacher_logprobs.sum(-1) for r in readings)
  return tuple(r.view.reference_logprobs.sum(-1) for r in readings)


def _lengths(readings: tuple[Reading, ...], wanted: bool = True) -> dict:
  if not wanted:
    return {}
  lengths = (r.mask.sum(-1) for r in readings)
  return dict(zip(('chosen_lengths', 'rejected_lengths'), lengths))


def _against_reference(loss, reference: str, args) -> Loss:
  """A loss of both responses' likelihood relative to a reference model."""

  def values(
    readings, target, params, reference, length_normalized=False, **args
  ):
    student = _sums(readings)
    references = _references(readings, reference)
    lengths = _lengths(readings, length_normalized)
    implicit = [
      losses.implicit_reward(q, p, beta=args.get('beta', 1.0), lengths=n)
      for q, p, n in zip(student, references, lengths.values() or (None, None))
    ]
    return loss(*student, *references, **lengths, **args), {
      'reward_chosen': implicit[0],
      'reward_rejected': implicit[1],
      'reward_margin': implicit[0] - implicit[1],
      'accuracy': (implicit[0] > implicit[1]).astype(jnp.float32),
    }

  choice = Option(reference, choices=('reference', 'teacher'))
  return Loss(
    values,
    {'reference': choice, **args},
    needs=lambda reference, **unused: {reference},
    pair=True,
    target=target,
  )


def _cpo(readings, target, params, **args):
  return losses.cpo(*_sums(readings), **args)


def _simpo(readings, target, params, **args):
  return losses.simpo(*_sums(readings), **_lengths(readings), **args)


def _ranking(readings, target, params, length_normalized, **args):
  lengths = _lengths(readings, length_normalized)
  return losses.ranking(*_sums(readings), **lengths, **args)


LOSSES: dict[str, Loss] = {
  'dpkd': _against_reference(
    losses.dpkd, 'teacher', {**_BETA, 'length_normalized': Option(True)}
  ),
  'dpo': _against_reference(
    losses.dpo,
    'reference',
    {**_BETA, 'label_smoothing': Option(0.0, low=0.0, high=0.5)},
  ),
  'ipo': _against_reference(
    losses.ipo, 'reference', {'tau': Option(0.1, above=0.0), **_NORMALIZED}
  ),
  'cpo': Loss(_cpo, _BETA, pair=True, target=target),
  'simpo': Loss(
    _simpo,
    {'beta': Option(2.0, above=0.0), 'gamma': Option(1.0)},
    pair=True,
    target=target,
  ),
  'ranking': Loss(
    _ranking,
    {
      'form': Option('logistic', choices=('logistic', 'linear', 'hinge')),
      'margin': Option(1.0),
      **_NORMALIZED,
    },
    pair=True,
    target=target,
  ),
}
