"""Mixtures: fractions, rows that need rollouts, and who gets them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objective import Draw, assign, permutation

B = 10
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 8}


def draw(source, **fields):
  return Draw(source, **fields)


SEEDS = 200


def draws(mixed, *, rows=B, step=0, batch_size=B):
  """Returns `assign` for every seed, [SEEDS, batch_size]."""
  keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
  each = jax.vmap(lambda key: assign(mixed, step, key, batch_size, rows))
  # Not jitted: operations are compiled once for all tests.
  return np.asarray(each(keys))


def counts(mixed, **options):
  """Returns how many rows each source gets, [SEEDS, sources]."""
  found = draws(mixed, **options)
  each = range(len(mixed.mixture()))
  return np.stack([np.sum(found == i, 1) for i in each], 1)


def test_fractions_by_hand():
  assert draw('student').fractions(0) == {'student': 1.0}
  half = draw({'data': 0.25, 'student': 0.75})
  assert half.fractions(3) == {'student': 0.75, 'data': 0.25}
  assert list(half.fractions(3)) == ['student', 'data']
  ramp = draw({'student': RISING, 'teacher': 0.0, 'data': 'rest'})
  for step, lam in ((0, 0.0), (2, 0.25), (8, 1.0), (99, 1.0)):
    found = ramp.fractions(step)
    np.testing.assert_allclose(
      [found[k] for k in ('student', 'teacher', 'data')], [lam, 0, 1 - lam]
    )
  assert ramp.scheduled
  assert not half.scheduled
  assert not draw({'student': 0.5, 'data': 'rest'}).scheduled


def test_sources_are_those_ever_drawn_from():
  assert draw({'student': 0.0, 'data': 1.0}).sources() == {'data'}
  assert draw({'student': 1.0, 'data': 'rest'}).sources() == {'student'}
  ramp = {'student': RISING, 'teacher': 'rest', 'data': 0.0}
  assert draw(ramp).sources() == {'student', 'teacher'}


@pytest.mark.parametrize('lam', [0.0, 0.01, 0.25, 0.3, 0.99, 1.0])
def test_counts_are_stratified(lam):
  mixed = draw({'student': lam, 'teacher': (1 - lam) / 3, 'data': 'rest'})
  rows = mixed.rollout_rows(0, B, seed=0)
  found = counts(mixed, rows=rows)
  fractions = (lam, (1 - lam) / 3, (1 - lam) * 2 / 3)
  for number, fraction in zip(found.T, fractions):
    expected = fraction * B
    low, high = math.floor(expected + 1e-6), math.ceil(expected - 1e-6)
    assert set(number) <= {low, high}
    # The mean of 200 Bernoulli variables deviates by 0.035 at most.
    assert abs(number.mean() - expected) < 0.12


@pytest.mark.parametrize(
  'batch_size, lam', [(10, 0.3), (10, 1 - 0.7), (4000, 0.1)]
)
def test_whole_counts_are_exact(batch_size, lam):
  # 0.3 * 10 and 1 - 0.7 aren't exact in floats; 4000 rows leave 4 digits.
  mixed = draw({'student': lam, 'data': 1 - lam})
  found = counts(mixed, rows=batch_size, batch_size=batch_size)
  assert set(found[:, 0]) == {round(lam * batch_size)}


def test_scheduled_counts_follow_the_step():
  mixed = draw({'student': RISING, 'data': 'rest'})
  for step, expected in ((0, {0}), (3, {3, 4}), (4, {5}), (8, {10})):
    assert set(counts(mixed, step=jnp.int32(step))[:, 0]) == expected


def test_assignment_is_deterministic_but_varies():
  mixed = draw({'student': 0.5, 'data': 0.5})
  found = draws(mixed)
  np.testing.assert_array_equal(found, draws(mixed))
  # Of 252 halves.
  assert len({tuple(row) for row in found}) > 100


@pytest.mark.parametrize('rows, students', [(0, {0}), (2, {2}), (5, {4, 5})])
def test_student_rows_have_rollouts(rows, students):
  found = draws(draw({'student': 0.45, 'data': 0.55}), rows=rows)
  assert set(np.sum(found == 0, 1)) == students
  for seed, row in enumerate(found[:10]):
    chosen = permutation(jax.random.key(seed), B)[:rows]
    assert set(np.flatnonzero(row == 0)) <= set(np.asarray(chosen))


def test_draws_share_rollouts():
  # The smaller fraction's students are among the larger's.
  few, many = (
    draws(draw({'student': lam, 'data': 1 - lam})) for lam in (0.3, 0.6)
  )
  assert np.all(many[few == 0] == 0)
  assert np.all(np.sum(many == 0, 1) == 6)


def test_one_coin_a_batch_is_all_or_none():
  source = {'student': 0.3, 'teacher': 0.35, 'data': 0.35}
  mixed = draw(source, coin='batch')
  tosses = [mixed.rollout_rows(step, B, seed=1) for step in range(2000)]
  assert set(tosses) == {0, B}
  # Three standard deviations of a mean of 2000 tosses.
  assert abs(np.mean(tosses) / B - 0.3) < 3 * math.sqrt(0.21 / 2000)
  assert tosses[:50] == [mixed.rollout_rows(s, B, seed=1) for s in range(50)]
  assert tosses[:50] != [mixed.rollout_rows(s, B, seed=2) for s in range(50)]
  assert np.all(counts(mixed, rows=B) == [B, 0, 0])
  assert np.all(counts(mixed, rows=0) == [0, B // 2, B // 2])


def test_coins_at_the_ends():
  for lam, rows in ((0.0, 0), (1.0, B)):
    mixed = draw({'student': lam, 'data': 1 - lam}, coin='batch')
    assert {mixed.rollout_rows(s, B, 0) for s in range(50)} == {rows}
    assert np.all(draws(mixed, rows=rows) == (0 if rows else 1))


def test_coins_follow_a_schedule():
  mixed = draw({'student': RISING, 'data': 'rest'}, coin='batch')
  assert mixed.rollout_rows(0, B, 0) == 0
  assert mixed.rollout_rows(8, B, 0) == B


@pytest.mark.parametrize(
  'lam, rows', [(0.0, 0), (1e-3, 1), (0.3, 3), (0.31, 4), (0.5, 5), (1.0, B)]
)
def test_rollout_rows_of_a_constant(lam, rows):
  mixed = draw({'student': lam, 'data': 1 - lam})
  assert mixed.rollout_rows(7, B, 0) == rows


def test_rollout_rows_of_a_schedule_are_few_sizes():
  mixed = draw({'student': RISING, 'data': 'rest'})
  rows = [mixed.rollout_rows(step, 32, 0) for step in range(10)]
  assert rows == [0, 4, 8, 16, 16, 32, 32, 32, 32, 32]
  slow = {**RISING, 'steps': 1000}
  mixed = draw({'student': slow, 'data': 'rest'})
  rows = [mixed.rollout_rows(step, 12, 0) for step in range(0, 1001, 10)]
  assert set(rows) == {0, 1, 2, 3, 6, 12}
  assert rows == sorted(rows)


def test_the_greedy_response_takes_the_students_place():
  mixed = draw({'greedy': 0.3, 'data': 0.7})
  assert mixed.sampled == 'greedy'
  assert mixed.rollout_rows(0, B, 0) == 3
  assert draw('data').sampled is None
  assert draw('data').rollout_rows(0, B, 0) == 0


def test_keys_tell_other_responses_apart():
  half = {'student': 0.5, 'data': 0.5}
  same = [draw('data'), draw({'data': 1}), draw('data', coin='batch')]
  assert len({each.key for each in same}) == 1
  others = [
    draw('data'),
    draw('data', task='corpus'),
    draw(half),
    draw(half, coin='batch'),
    draw('student', rank='best', by='learned'),
    draw('student', rank='worst', by='learned'),
    draw('student'),
  ]
  assert len({each.key for each in others}) == len(others)
  assert others[-3].unranked.key == others[-1].key
