"""Rollouts: which rows the student answers, and with what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import recipes, sampling, step, testing
from tests.step_cases import (
  B,
  T,
  V,
  assert_close,
  assert_same,
  batch,
  fresh,
  frozen,
  gkd,
  gkd_formula,
  models,
  settings,
)


def test_a_view_holds_student_and_data_rows():
  program = gkd()
  (view,), metrics = program.rollout(fresh(program), frozen(), batch(), 3)
  key = jax.random.fold_in(jax.random.key(0), 0)
  sampled = sampling.generate(
    models()[0],
    models()[1],
    batch().prompt,
    jax.random.fold_in(key, 0),
    max_new_tokens=T,
    row_ids=batch().example_id,
  )
  gold = batch().responses['data']
  same = lambda other: np.all(
    (view.tokens == other.tokens) & (view.mask == other.mask), 1
  )
  assert np.all(same(sampled) | same(gold))
  students = same(sampled) & ~same(gold)
  assert sum(students) == 3
  lengths = np.asarray(sampled.mask.sum(1))[students]
  ended = np.any(np.asarray(sampled.tokens == 1)[students], 1)
  assert_same(metrics['rollout/length'], (lengths.sum(), 3))
  assert_same(metrics['rollout/eos_fraction'], (ended.sum(), 3))
  # Integers: nothing differentiates the sampler.
  assert all(
    not jnp.issubdtype(leaf.dtype, jnp.inexact)
    for leaf in jax.tree.leaves(view)
  )


def test_a_sample_depends_on_the_example_and_not_on_its_place():
  program = gkd(lam=1.0)
  (view,), _ = program.rollout(fresh(program), frozen(), batch(), B)
  order = np.random.default_rng(0).permutation(B)
  moved = jax.tree.map(lambda x: x[order], batch())
  (other,), _ = program.rollout(fresh(program), frozen(), moved, B)
  assert_same(other, jax.tree.map(lambda x: x[order], view))


@pytest.mark.parametrize('length, new', [(T, 2), (2, T)])
def test_responses_of_several_lengths_mix(length, new):
  program = step.Program(
    settings(recipes.build('gkd', beta=0.9), max_new_tokens=new)
  )
  rows = batch(length)
  (view,), _ = program.rollout(fresh(program), frozen(), rows, 3)
  assert view.tokens.shape == (B, T)
  _, metrics = program.update(fresh(program), frozen(), rows, 3)
  value = gkd_formula(models()[1], rows.prompt, view)
  assert_close(metrics['loss'][0], value)


def test_no_token_is_sampled_that_the_teacher_lacks():
  wide, params = testing.tabular(jax.random.key(0), vocab_size=V + 2)
  params['kernel'] = params['kernel'].at[:, V:].set(5.0)
  program = step.Program(settings(recipes.build('on_policy_kd'), student=wide))
  (view,), _ = program.rollout(fresh(program, params), frozen(), batch(), B)
  assert np.all(view.tokens < V)
  assert np.max(sampling.generate(
    wide, params, batch().prompt, jax.random.key(0), max_new_tokens=T
  ).tokens) >= V  # fmt: skip


def test_scheduled_lambda_goes_from_data_to_student():
  lam = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 2}
  program = step.Program(settings(recipes.build('gkd', lam=lam)))
  goal = program.settings.objective
  seen = []
  for at in range(3):
    rows = goal.rollout_rows(at, B, 0)
    current = dataclasses.replace(fresh(program), step=jnp.int32(at))
    (view,), _ = program.rollout(current, frozen(), batch(), rows)
    gold = batch().responses['data']
    same = np.all(view.mask == gold.mask, 1)
    same &= np.all(view.tokens == gold.tokens, 1)
    seen.append((rows, int(np.sum(same))))
  assert [rows for rows, _ in seen] == [0, 3, B]
  assert seen[0][1] == B
  assert seen[1][1] >= B - 3
  # The row whose gold is empty is never sampled empty.
  assert seen[2][1] < B


def test_one_coin_decides_for_the_batch():
  goal = recipes.build('gkd', coin='batch')
  program = step.Program(settings(goal))
  gold = batch().responses['data']
  for at in range(4):
    rows = goal.rollout_rows(at, B, seed=3)
    before = dataclasses.replace(fresh(program), step=jnp.int32(at))
    (view,), metrics = program.rollout(before, frozen(), batch(), rows)
    if rows:
      assert metrics['rollout/length'][0] == view.mask.sum()
      assert np.all(view.mask.any(1))
    else:
      assert_same(view, gold)
      assert not metrics


def test_rollouts_come_from_the_behaviour_policy():
  program = gkd(lam=1.0)
  other = models()[0].init(jax.random.key(8))
  stale = dataclasses.replace(fresh(program), behaviour=other)
  views = program.rollout(stale, frozen(), batch(), B)
  assert_same(
    views, program.rollout(fresh(program, other), frozen(), batch(), B)
  )


def test_examples_may_be_without_ids():
  program = gkd(lam=1.0)
  rows = dataclasses.replace(batch(), example_id=None)
  numbered = dataclasses.replace(batch(), example_id=jnp.arange(B))
  assert_same(
    program.rollout(fresh(program), frozen(), rows, B),
    program.rollout(fresh(program), frozen(), numbered, B),
  )


def test_sampling_settings_reach_the_rollout():
  goal = recipes.build('on_policy_kd')
  options = {'temperature': 0, 'eos_id': 0, 'min_new_tokens': 2}
  program = step.Program(settings(goal, sampling=options))
  (view,), metrics = program.rollout(fresh(program), frozen(), batch(), B)
  expected = sampling.generate(
    models()[0],
    models()[1],
    batch().prompt,
    jax.random.key(0),
    max_new_tokens=T,
    **options,
  )
  assert_same((view.tokens, view.mask), (expected.tokens, expected.mask))
  ended = np.any(np.asarray(view.tokens == 0) & np.asarray(view.mask), 1)
  assert_same(metrics['rollout/eos_fraction'], (ended.sum(), B))


@pytest.mark.parametrize('lam, rows', [(0.5, 3), (0.0, 0)])
def test_missing_responses_are_named(lam, rows):
  program = gkd(lam=lam)
  rows_without = dataclasses.replace(batch(), responses={})
  with pytest.raises(ValueError, match=r"a term draws from \['data'\]"):
    program.rollout(fresh(program), frozen(), rows_without, rows)


def test_a_student_term_needs_rollouts():
  program = gkd(lam=1.0)
  with pytest.raises(ValueError, match=r"\['student'\].* need rows > 0"):
    program.rollout(fresh(program), frozen(), batch(), 0)
