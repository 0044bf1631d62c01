"""What an argument of a loss may be, and what it is at a step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objective import Option
from kdjax.objective.specs import at_step, ends, spec_problems

FALLING = {'kind': 'linear', 'start': 2.0, 'end': 0.5, 'steps': 4}


@pytest.mark.parametrize(
  'option, values',
  [
    (Option(1.0), [0, -3.5, FALLING]),
    (Option(1.0, low=0.5, high=2.0), [0.5, 2, FALLING]),
    (Option(0.1, above=0.0), [1e-9, {'kind': 'constant', 'start': 1}]),
    (Option(None, above=0.0), [None, 3, FALLING]),
    (Option(None, low=0, fixed=True), [None, 0, 3]),
    (Option('a', choices=('a', 'b')), ['a', 'b']),
    (Option(False), [True, False]),
  ],
)
def test_values_that_options_allow(option, values):
  for value in values:
    assert option.problems('x', value) == []


@pytest.mark.parametrize(
  'option, value, message',
  [
    (Option(1.0, low=0.0, high=1.0), 1.5, 'x=1.5: expected 0 to 1'),
    (Option(1.0, low=1.0, high=3.0), FALLING, ': expected 1 to 3'),
    (Option(1.0, above=0.0), 0, 'x=0: must be above 0'),
    (Option(1.0, above=0.5), FALLING, 'must be above 0.5'),
    (Option(1.0), math.nan, 'x=nan: expected a finite number'),
    (Option(1.0), math.inf, 'x=inf: expected a finite number'),
    (Option(1.0), None, 'x: schedule None: expected a number or a mapping'),
    (Option(1.0), True, 'x=True: expected float'),
    (Option(None, above=0.0), True, 'x=True: expected float'),
    (Option(None, fixed=True), FALLING, ': expected a whole number'),
    (Option(0, fixed=True), 'two', "x='two': expected a whole"),
    (Option(False), 1, 'x=1: expected bool'),
    (Option(False), None, 'x=None: expected bool'),
    (Option('a', choices=('a', 'b')), 'c', "x='c'; allowed are ['a', 'b']"),
    (Option('a', choices=('a', 'b')), None, "x=None; allowed are ['a', 'b']"),
    (Option(1.0), {'kind': 'line'}, 'kind must be one of'),
  ],
)
def test_values_that_options_refuse(option, value, message):
  (found,) = option.problems('x', value)
  assert found.startswith('x')
  assert message in found


@pytest.mark.parametrize('value', [None, True, False, 'group'])
def test_what_is_no_number_is_the_same_at_every_step(value):
  assert at_step(value, 3) is value


def test_numbers_stay_python_numbers_where_the_step_is_traced():
  found = []

  def run(step):
    found.append(at_step(3, step))
    return at_step(FALLING, step)

  steps = jnp.arange(6)
  np.testing.assert_allclose(
    jax.vmap(jax.jit(run))(steps), [2.0, 1.625, 1.25, 0.875, 0.5, 0.5]
  )
  assert found == [3.0] and isinstance(found[0], float)


@pytest.mark.parametrize('kind', ['linear', 'cosine', 'exponential'])
def test_ends_hold_all_that_a_schedule_passes_through(kind):
  spec = {**FALLING, 'kind': kind}
  high, low = ends(spec)
  assert (high, low) == (2.0, 0.5)
  values = [at_step(spec, step) for step in range(9)]
  # A float32 logarithm and back is off by an ulp or two.
  assert all(low - 1e-6 <= value <= high + 1e-6 for value in values)


def test_ends_of_a_constant_are_its_value():
  assert ends(3) == (3.0, 3.0)
  assert ends({'kind': 'constant', 'start': 2}) == (2.0, 2.0)


def test_limits_are_of_both_ends():
  rising = {**FALLING, 'start': 0.5, 'end': 2.0}
  for spec in (FALLING, rising):
    assert spec_problems('x', spec, within=(0.5, 2.0), above=0.4) == []
    for limits in ({'within': (0.6, 2.0)}, {'within': (0.5, 1.9)}):
      assert len(spec_problems('x', spec, **limits)) == 1
    assert len(spec_problems('x', spec, above=0.5)) == 1
