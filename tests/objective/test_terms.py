"""Mixtures, assignments, reductions, and what is wrong with a term."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.objective import (
  LOSSES,
  Objective,
  Term,
  assign,
  count,
  permutation,
  reduce,
  values,
)

B = 10
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 8}


def term(source='data', **fields):
  return Term('t', 'forward_kl', source, **fields)


SEEDS = 200


def draws(mixed, *, rows=B, step=0, batch_size=B):
  """Returns `assign` for every seed, [SEEDS, batch_size]."""
  keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
  draw = jax.vmap(lambda key: assign(mixed, step, key, batch_size, rows))
  # Not jitted: operations are compiled once for all tests.
  return np.asarray(draw(keys))


def counts(mixed, **options):
  """Returns how many rows each source gets, [SEEDS, sources]."""
  found = draws(mixed, **options)
  each = range(len(mixed.mixture()))
  return np.stack([np.sum(found == i, 1) for i in each], 1)


def test_fractions_by_hand():
  assert term('student').fractions(0) == {'student': 1.0}
  half = term({'data': 0.25, 'student': 0.75})
  assert half.fractions(3) == {'student': 0.75, 'data': 0.25}
  assert list(half.fractions(3)) == ['student', 'data']
  ramp = term({'student': RISING, 'teacher': 0.0, 'data': 'rest'})
  for step, lam in ((0, 0.0), (2, 0.25), (8, 1.0), (99, 1.0)):
    found = ramp.fractions(step)
    np.testing.assert_allclose(
      [found[k] for k in ('student', 'teacher', 'data')], [lam, 0, 1 - lam]
    )
  assert ramp.scheduled
  assert not half.scheduled
  assert not term({'student': 0.5, 'data': 'rest'}).scheduled


def test_sources_are_those_ever_drawn_from():
  assert term({'student': 0.0, 'data': 1.0}).sources() == {'data'}
  assert term({'student': 1.0, 'data': 'rest'}).sources() == {'student'}
  ramp = {'student': RISING, 'teacher': 'rest', 'data': 0.0}
  goal = Objective((term(ramp), term('data')))
  assert term(ramp).sources() == {'student', 'teacher'}
  assert goal.sources() == {'student', 'teacher', 'data'}


@pytest.mark.parametrize('lam', [0.0, 0.01, 0.25, 0.3, 0.99, 1.0])
def test_counts_are_stratified(lam):
  mixed = term({'student': lam, 'teacher': (1 - lam) / 3, 'data': 'rest'})
  rows = Objective((mixed,)).rollout_rows(0, B, seed=0)
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
  mixed = term({'student': lam, 'data': 1 - lam})
  found = counts(mixed, rows=batch_size, batch_size=batch_size)
  assert set(found[:, 0]) == {round(lam * batch_size)}


def test_scheduled_counts_follow_the_step():
  mixed = term({'student': RISING, 'data': 'rest'})
  for step, expected in ((0, {0}), (3, {3, 4}), (4, {5}), (8, {10})):
    assert set(counts(mixed, step=jnp.int32(step))[:, 0]) == expected


def test_assignment_is_deterministic_but_varies():
  mixed = term({'student': 0.5, 'data': 0.5})
  found = draws(mixed)
  np.testing.assert_array_equal(found, draws(mixed))
  # Of 252 halves.
  assert len({tuple(row) for row in found}) > 100


@pytest.mark.parametrize('rows, students', [(0, {0}), (2, {2}), (5, {4, 5})])
def test_student_rows_have_rollouts(rows, students):
  found = draws(term({'student': 0.45, 'data': 0.55}), rows=rows)
  assert set(np.sum(found == 0, 1)) == students
  for seed, row in enumerate(found[:10]):
    chosen = permutation(jax.random.key(seed), B)[:rows]
    assert set(np.flatnonzero(row == 0)) <= set(np.asarray(chosen))


def test_terms_share_rollouts():
  # The smaller fraction's students are among the larger's.
  few, many = (
    draws(term({'student': lam, 'data': 1 - lam})) for lam in (0.3, 0.6)
  )
  assert np.all(many[few == 0] == 0)
  assert np.all(np.sum(many == 0, 1) == 6)


def test_one_coin_a_batch_is_all_or_none():
  source = {'student': 0.3, 'teacher': 0.35, 'data': 0.35}
  mixed = term(source, coin='batch')
  goal = Objective((mixed,))
  tosses = [goal.rollout_rows(step, B, seed=1) for step in range(2000)]
  assert set(tosses) == {0, B}
  # Three standard deviations of a mean of 2000 tosses.
  assert abs(np.mean(tosses) / B - 0.3) < 3 * math.sqrt(0.21 / 2000)
  assert tosses[:50] == [goal.rollout_rows(s, B, seed=1) for s in range(50)]
  assert tosses[:50] != [goal.rollout_rows(s, B, seed=2) for s in range(50)]
  assert np.all(counts(mixed, rows=B) == [B, 0, 0])
  assert np.all(counts(mixed, rows=0) == [0, B // 2, B // 2])


def test_coins_at_the_ends():
  for lam, rows in ((0.0, 0), (1.0, B)):
    mixed = term({'student': lam, 'data': 1 - lam}, coin='batch')
    goal = Objective((mixed,))
    assert {goal.rollout_rows(s, B, 0) for s in range(50)} == {rows}
    assert np.all(draws(mixed, rows=rows) == (0 if rows else 1))


def test_coins_follow_a_schedule():
  mixed = term({'student': RISING, 'data': 'rest'}, coin='batch')
  goal = Objective((mixed,))
  assert goal.rollout_rows(0, B, 0) == 0
  assert goal.rollout_rows(8, B, 0) == B


@pytest.mark.parametrize(
  'lam, rows', [(0.0, 0), (1e-3, 1), (0.3, 3), (0.31, 4), (0.5, 5), (1.0, B)]
)
def test_rollout_rows_of_a_constant(lam, rows):
  goal = Objective((term({'student': lam, 'data': 1 - lam}), term('data')))
  assert goal.rollout_rows(7, B, 0) == rows


def test_rollout_rows_of_a_schedule_are_few_sizes():
  goal = Objective((term({'student': RISING, 'data': 'rest'}),))
  rows = [goal.rollout_rows(step, 32, 0) for step in range(10)]
  assert rows == [0, 4, 8, 16, 16, 32, 32, 32, 32, 32]
  slow = {**RISING, 'steps': 1000}
  goal = Objective((term({'student': slow, 'data': 'rest'}),))
  rows = [goal.rollout_rows(step, 12, 0) for step in range(0, 1001, 10)]
  assert set(rows) == {0, 1, 2, 3, 6, 12}
  assert rows == sorted(rows)


def test_the_greediest_term_decides_the_rows():
  goal = Objective(
    (term('student'), term({'student': 0.2, 'data': 0.8}), term('data'))
  )
  assert goal.rollout_rows(0, B, 0) == B
  assert Objective((term('data'),)).rollout_rows(0, B, 0) == 0


def test_terms_on_the_same_responses_share_a_view():
  kl = Term('a', 'forward_kl', {'data': 1, 'student': 0})
  same = Term('b', 'reverse_kl', {'student': 0.0, 'data': 1.0}, normalize='sum')
  gold = Term('c', 'cross_entropy', 'data')
  tossed = Term('d', 'cross_entropy', 'data', coin='batch')
  other = Term('e', 'cross_entropy', {'data': 0.5, 'student': 0.5})
  coin = Term('f', 'cross_entropy', {'data': 0.5, 'student': 0.5}, coin='batch')
  views = Objective((kl, gold, same, tossed, other, coin)).views()
  names = [[term.name for term in view] for view in views]
  assert names == [['a', 'b'], ['c', 'd'], ['e'], ['f']]


VALUES = jnp.array([[1.0, 2.0, 4.0], [8.0, jnp.nan, jnp.inf], [jnp.nan] * 3])
MASK = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize(
  'normalize, total, number',
  [('token', 15.0, 4), ('sequence', 7 / 3 + 8, 2), ('sum', 15.0, 2)],
)
def test_reductions_by_hand(normalize, total, number):
  found = reduce(VALUES, MASK, normalize)
  np.testing.assert_allclose(found, (total, number), rtol=1e-6)
  response = types.Response(jnp.zeros((3, 3), jnp.int32), MASK)
  assert count(response, normalize) == number
  grads = jax.grad(lambda v: reduce(v, MASK, normalize)[0])(VALUES)
  assert np.all(np.isfinite(grads))
  assert np.all(np.asarray(grads)[~np.asarray(MASK)] == 0)


@pytest.mark.parametrize('normalize', ['token', 'sequence', 'sum'])
def test_reductions_of_parts_add_up(normalize):
  parts = [
    reduce(VALUES[i], MASK[i], normalize) for i in np.split(np.r_[:3], 3)
  ]
  np.testing.assert_allclose(
    np.sum(parts, 0), reduce(VALUES, MASK, normalize), rtol=1e-6
  )


def logits():
  keys = jax.random.split(jax.random.key(0), 2)
  return [jax.random.normal(key, (2, 3, 5)) for key in keys]


LABELS = jnp.array([[0, 1, 2], [3, 4, 0]])


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_every_loss_gives_a_value_a_token(name):
  student, teacher = logits()
  found = values(Term('t', name), jnp.int32(0), student, teacher, LABELS)
  assert found.shape == (2, 3)
  if not LOSSES[name].needs_teacher:
    alone = values(Term('t', name), jnp.int32(0), student, None, LABELS)
    np.testing.assert_array_equal(found, alone)


def test_arguments_reach_the_loss_and_follow_the_step():
  student, teacher = logits()
  args = {'beta': RISING, 'temperature': 2, 'normalized': True}
  mixed = Term('t', 'generalized_jsd', loss_args=args)
  for step, beta in ((0, 0.0), (2, 0.25), (8, 1.0)):
    found = jax.jit(lambda step: values(mixed, step, student, teacher, LABELS))(
      step
    )
    expected = losses.generalized_jsd(
      student, teacher, beta=beta, temperature=2.0, normalized=True
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_argmax_cross_entropy_learns_the_teachers_choice():
  student, teacher = logits()
  found = values(Term('t', 'argmax_cross_entropy'), 0, student, teacher, LABELS)
  expected = losses.cross_entropy(student, jnp.argmax(teacher, -1))
  np.testing.assert_array_equal(found, expected)


def test_a_sound_objective_has_no_problems():
  args = {'beta': RISING, 'temperature': 1, 'normalized': False}
  goal = Objective(
    (
      Term('a', 'generalized_jsd', 'student', RISING, loss_args=args),
      Term('b', 'cross_entropy', {'data': 'rest', 'teacher': RISING}, -1),
    )
  )
  assert goal.problems() == []


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'loss': 'kl'}, r"unknown loss 'kl'; known are \['argmax_cross_entropy'"),
    ({'loss_args': {'bata': 1}}, r"takes no \['bata'\]; it takes \['beta', "),
    ({'loss_args': {'beta': 1.5}}, r'loss_args.beta=1.5: expected 0 to 1'),
    ({'loss_args': {'beta': 'x'}}, r"loss_args.beta: schedule 'x'"),
    ({'loss_args': {'beta': True}}, r'loss_args.beta=True: expected float'),
    ({'loss_args': {'normalized': 1}}, r'normalized=1: expected bool'),
    ({'loss_args': {'temperature': 0}}, r'temperature=0: must be above 0'),
    (
      {'loss': 'skew_forward_kl', 'loss_args': {'alpha': 2.0}},
      r'loss_args.alpha=2.0: expected 0 to 1',
    ),
    ({'normalize': 'mean'}, r"'mean'; allowed are \['token', 'sequence', "),
    ({'coin': 'row'}, r"coin='row'; allowed are \['example', 'batch'\]"),
    ({'weight': math.inf}, r'weight=inf: expected a finite number'),
    ({'weight': {'kind': 'linear'}}, r'weight: schedule .* missing keys'),
    ({'source': 'gold'}, r"unknown sources \['gold'\]; allowed are \['stud"),
    ({'source': {}}, r'source={}: expected one of'),
    ({'source': ['data']}, r"source=\['data'\]: expected one of"),
    ({'source': {'data': 0.7, 'student': 0.5}}, r'add up to 1.2, expected 1'),
    ({'source': {'data': 1.2}}, r'source.data=1.2: expected 0 to 1'),
    ({'source': {'data': None}}, r'source.data: schedule None'),
    ({'source': {'data': 'rest', 'teacher': 'rest'}}, r"take the 'rest'"),
    ({'source': {'data': 0.5, 'student': RISING}}, r"give one source the 'r"),
    (
      {'source': {'data': 'rest', 'teacher': 0.5, 'student': RISING}},
      r"add up to 1.5, leaving no 'rest'",
    ),
  ],
)
def test_problems_name_the_value_and_what_is_allowed(fields, message):
  fields = {'loss': 'generalized_jsd', 'source': 'data', **fields}
  (found,) = Term('t', **fields).problems()
  with pytest.raises(ValueError, match=message):
    raise ValueError(found)
  assert found.startswith("term 't': ")


def test_every_problem_is_listed():
  bad = Term('bad', 'kl', {'gold': 1.0}, 'heavy', normalize='mean', coin='row')
  hot = Term('bad', 'forward_kl', loss_args={'temperature': -1.0, 'beta': 0})
  found = Objective((bad, hot)).problems()
  for part in (
    "'kl'", 'gold', 'weight', 'mean', 'row', 'temperature=-1.0', "['beta']",
    "share the names ['bad']",
  ):  # fmt: skip
    assert sum(part in problem for problem in found) == 1, part
  assert len(found) == 8
  assert Objective(()).problems() == ['an objective needs at least one term']


def test_one_coin_cannot_serve_two_mixtures():
  tossed = Term('a', 'forward_kl', {'student': 0.5, 'data': 0.5}, coin='batch')
  always = Term('b', 'reverse_kl', 'student')
  gold = Term('c', 'cross_entropy', 'data')
  same = Term('d', 'reverse_kl', {'student': 0.5, 'data': 0.5}, coin='batch')
  assert Objective((tossed, gold, same)).problems() == []
  (found,) = Objective((tossed, always)).problems()
  assert "terms ['a', 'b'] draw from the student" in found
