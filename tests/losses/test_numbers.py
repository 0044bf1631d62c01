"""Every number that isn't traced is checked, whatever holds it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.losses import numbers
from tests.losses.twins import known_problem

HOLDERS = (float, np.float32, np.float64, np.asarray, jnp.float32, jnp.bfloat16)
LOGITS = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
ONES = np.ones((1, 2), np.float32)
PAIR = (np.zeros(2, np.float32),) * 4


def of_logits(name, **args):
  return functools.partial(getattr(losses, name), LOGITS, -LOGITS, **args)


# A loss, its argument, and a value outside of what that may be.
CASES = [
  (of_logits('forward_kl'), 'temperature', 0),
  (of_logits('soft_cross_entropy'), 'temperature', -1),
  (of_logits('engine'), 'temperature', 0),
  (of_logits('generalized_jsd'), 'beta', 2),
  (of_logits('skew_forward_kl'), 'alpha', -1),
  (of_logits('skew_reverse_kl'), 'alpha', 2),
  (of_logits('adaptive_kl'), 'mu', 2),
  (of_logits('dpkd_token'), 'beta', 0),
  (functools.partial(losses.dpo, *PAIR), 'beta', 0),
  (functools.partial(losses.dpo, *PAIR), 'label_smoothing', 0.5),
  (functools.partial(losses.ipo, *PAIR), 'tau', 0),
  (functools.partial(losses.reward_to_go, ONES, ONES > 0), 'discount', 2),
  (
    functools.partial(losses.policy_gradient, ONES, 1, behaviour_logprobs=ONES),
    'clip',
    0,
  ),
]


@pytest.mark.parametrize('loss, name, wrong', CASES)
def test_numbers_outside_their_range_are_refused(loss, name, wrong):
  for hold in HOLDERS:
    with pytest.raises(ValueError, match=f'{name} must be'):
      loss(**{name: hold(wrong)})


def test_what_cannot_be_known_is_not_checked():
  loss = of_logits('generalized_jsd')
  jax.eval_shape(lambda beta: loss(beta=beta), jnp.float32(2))
  # A mask may drop the second token.
  found = of_logits('forward_kl')(temperature=jnp.array([1.0, 0.0]))
  assert np.isfinite(found[0])


def test_chunked_checks_what_its_loss_does():
  head = types.Head(jnp.eye(3))
  with pytest.raises(ValueError, match=r'beta must be in \[0, 1\]'):
    losses.chunked(
      losses.generalized_jsd,
      *(LOGITS, head, LOGITS, head),
      weights=np.ones(2),
      args={'beta': np.float32(2)},
    )


def test_chunked_tells_a_topk_of_a_temperature_of_one_in_any_form():
  inputs, _ = known_problem(2)
  chunked = functools.partial(losses.chunked, losses.forward_kl)
  expected = chunked(**inputs)
  for one in (np.float32(1), jnp.float32(1)):
    found = chunked(**{**inputs, 'args': {'temperature': one}})
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_numbers_and_what_is_none():
  for hold in HOLDERS:
    found = numbers.number(hold(0.5))
    assert isinstance(found, float) and found == 0.5
  assert numbers.number(np.bool_(True)) is True
  for other in (None, (0.5, 0.5), np.ones(1), jnp.ones(1)):
    assert numbers.number(other) is None
  assert jax.eval_shape(numbers.number, 1.0) is None
