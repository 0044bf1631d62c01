"""Tests that one program does what the phases do, and of rolling out ahead."""

import dataclasses

import jax
import numpy as np
import pytest

from kdjax import models, recipes, step
from tests import tiny
from tests.step_cases import (
  B,
  V,
  assert_close,
  assert_same,
  batch,
  fresh,
  frozen,
  gkd,
  settings,
)


def numbers(tree):
  """The leaves that are arithmetic: typed keys are none."""
  return [x for x in jax.tree.leaves(tree) if x.dtype.name[:3] != 'key']


def in_phases(program, state, *args):
  return program.update(state, *args, around=lambda phase, run: run())


@pytest.mark.parametrize('updates', [1, 2])
def test_one_program_does_what_the_phases_do(updates):
  goal = recipes.build('gkd', lam=0.5, beta=0.9)
  program = step.Program(settings(goal, updates_per_rollout=updates))
  assert program.fused
  given = frozen(), batch(), 3
  whole = program.update(fresh(program), *given)
  # The compiler may add up in another order in another program.
  phases = in_phases(program, fresh(program), *given)
  for one, other in zip(whole, phases):
    assert_close(numbers(one), numbers(other))


def test_a_step_is_one_dispatch_and_waits_for_nothing(monkeypatch):
  program = gkd()
  state, _ = program.update(fresh(program), frozen(), batch(), 3)
  for phase in ('_rollout', '_score', '_learn'):
    monkeypatch.setattr(program, phase, None)
  monkeypatch.setattr(jax, 'block_until_ready', None)
  with jax.transfer_guard('disallow_explicit'):
    _, metrics = program.update(state, frozen(), batch(), 3)
  assert np.isfinite(metrics['loss'][0])


def _step(beta, temperature=1.0, shared=True):
  """Returns a step's program as text, and what runs it."""
  goal = recipes.build('gkd', lam=0.5, beta=beta)
  drawn = {'temperature': temperature}
  program = step.Program(settings(goal, sampling=drawn, shared=shared))
  run, args = program._whole_step(fresh(program), frozen(), batch(), 3, None)
  return run.lower(*args).as_text(), lambda: run(*args)[1]


def test_shared_programs_take_numbers_as_arguments():
  one, _ = _step(beta=0.1)
  other, _ = _step(beta=0.9, temperature=0.5)
  assert one == other
  assert one != _step(beta=0.1, temperature=0.0)[0]
  assert _step(0.1, shared=False)[0] != _step(0.9, shared=False)[0]


@pytest.mark.slow
def test_a_shared_program_does_what_one_of_its_own_does():
  found, expected = (
    _step(beta=0.9, temperature=0.5, shared=shared)[1]()
    for shared in (True, False)
  )
  # The compiler folds constants: the last digits may differ.
  assert_close(numbers(found), numbers(expected))


def test_rollouts_that_change_in_number_are_a_program_of_their_own():
  scheduled = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 9}
  for options in ({'lam': scheduled}, {'coin': 'batch'}):
    goal = recipes.build('gkd', **{'lam': 0.5, **options})
    assert not step.Program(settings(goal)).fused, options
  # A draw that is one source alone has nothing to toss for.
  goal = recipes.build('gkd', lam=1.0, coin='batch')
  assert step.Program(settings(goal)).fused


@pytest.mark.parametrize('run', [step.Program.update, in_phases])
def test_rollouts_ahead_are_by_the_policy_one_step_older(run):
  goal = recipes.build('gkd', lam=1.0, beta=0.5)
  program = step.Program(settings(goal))
  first = batch()
  second = dataclasses.replace(first, example_id=first.example_id + 100)
  start = fresh(program)
  params = jax.tree.map(np.array, start.params)
  waiting = program.ahead(start, frozen(), first, B)
  # What waits is what the step itself would have sampled.
  views, _ = program.rollout(fresh(program), frozen(), first, B)
  assert_same(waiting.pending_rollout[0], views)

  args = (second,)
  after, metrics = run(program, waiting, frozen(), first, B, *args)
  plain = step.Program(settings(goal))
  expected, found = plain.update(fresh(plain), frozen(), first, B)
  assert_close(after.params, expected.params)
  assert_close(metrics['loss'], found['loss'])
  # The next step's samples: its key, but the parameters before this update.
  old = dataclasses.replace(fresh(program), step=after.step)
  jax.tree.map(np.testing.assert_array_equal, old.params, params)
  views, _ = program.rollout(old, frozen(), second, B)
  assert_same(after.pending_rollout[0], views)


@pytest.mark.slow
def test_rollouts_in_another_dtype_are_those_of_a_cast_model():
  config = {**tiny.MODEL, 'vocab_size': V}
  model, params = models.from_config(config, jax.random.key(3))
  goal = recipes.build('on_policy_kd')
  program = step.Program(
    settings(goal, student=model, sampling={'dtype': 'bfloat16'})
  )
  (view,), _ = program.rollout(fresh(program, params), frozen(), batch(), B)
  cast, weights = models.cast(model, params, 'bfloat16')
  assert {x.dtype.name for x in jax.tree.leaves(weights)} == {'bfloat16'}
  plain = step.Program(settings(goal, student=cast))
  (expected,), _ = plain.rollout(fresh(plain, weights), frozen(), batch(), B)
  assert_same(view, expected)
  # The student itself stays what it was.
  after, _ = program.update(fresh(program, params), frozen(), batch(), B)
  kinds = {x.dtype.name for x in jax.tree.leaves(after.params)}
  assert kinds == {'float32'}


def test_a_model_without_a_dtype_cannot_be_cast():
  student = settings(recipes.build('sft')).student
  with pytest.raises(TypeError, match=r'config\.dtype'):
    models.cast(student, {}, 'bfloat16')
