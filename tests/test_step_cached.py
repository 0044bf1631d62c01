"""Steps whose teacher is a cache of its likeliest tokens."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, step, types
from kdjax.objective import Objective, Term
from tests.step_cases import (
  B,
  T,
  V,
  assert_close,
  assert_trees,
  batch,
  fresh,
  frozen,
  log_probs,
  models,
  settings,
)

TERMS = {
  term.name: term
  for term in (
    Term('kd', 'forward_kl', 'teacher', loss_args={'temperature': 1.0}),
    Term('jsd', 'generalized_jsd', 'teacher', 0.5, normalize='sequence'),
    Term('akl', 'adaptive_kl', 'teacher', 0.3, normalize='sum'),
    Term('best', 'argmax_cross_entropy', 'teacher', 0.2),
    Term('sft', 'cross_entropy', 'data', 0.1),
    Term('seqkd', 'cross_entropy', 'teacher'),
    Term('gold', 'reverse_kl', 'data'),
  )
}
SOFT = 'kd', 'jsd', 'akl', 'best'
BOUNDS = ('loss/kd', 'loss/jsd', 'forward_kl', 'reverse_kl', 'forward_kl_first')


@functools.cache
def log_p():
  """[B, T, V] the teacher's, of its responses."""
  _, _, teacher, params = models()
  return log_probs(
    teacher, params, batch().prompt, batch().responses['teacher']
  )


@functools.cache
def cached(k):
  """The batch, with the teacher's top k."""
  whole = batch()
  theirs = whole.responses['teacher']
  top = losses.top_k(log_p(), k)
  # Nothing off the mask is of any use.
  kept = lambda x: jnp.where(
    theirs.mask.reshape(B, T, *[1] * (x.ndim - 2)), x, 0
  )
  theirs = dataclasses.replace(theirs, teacher=jax.tree.map(kept, top))
  responses = {**whole.responses, 'teacher': theirs}
  return dataclasses.replace(whole, responses=responses)


@functools.cache
def program(*names, live=False, **options):
  goal = Objective(tuple(TERMS[name] for name in names))
  if not live:
    goal, options['teacher'] = goal.caching({''}), None
  return step.Program(settings(goal, measure_every=1, **options))


@functools.cache
def update(k, *names, **options):
  """Returns the next state and metrics; of the live teacher where k is 0."""
  run = program(*names, live=not k, **options)
  models, given = ({}, cached(k)) if k else (frozen(), batch())
  return run.update(fresh(run), models, given, 0)


def means(metrics):
  return {k: float(s) / max(float(n), 1) for k, (s, n) in metrics.items()}


# The teacher's log-probabilities are rounded to 5e-7 each.
assert_near = functools.partial(
  assert_trees,
  functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=3e-6),
)


def test_all_tokens_are_the_live_teacher():
  state, metrics = update(V, *SOFT)
  live, expected = update(0, *SOFT)
  metrics = dict(metrics)
  mass = metrics.pop('teacher_mass')
  assert_near(metrics, expected)
  assert_near(state.params, live.params)
  assert (
    float(mass[0]) == float(mass[1]) == batch().responses['teacher'].mask.sum()
  )
  change = jax.tree.map(
    lambda a, b: np.max(np.abs(a - b)), state.params['student'], models()[1]
  )
  assert min(jax.tree.leaves(change)) > 1e-2  # 1e3 times the tolerance


def test_fewer_tokens_are_a_lower_bound_and_say_their_mass():
  live = means(update(0, *SOFT)[1])
  mask = np.asarray(batch().responses['teacher'].mask)
  found = means(update(3, *SOFT)[1])
  likeliest = np.sort(np.exp(log_p()), -1)[..., -3:].sum(-1)
  expected = likeliest[mask].mean()
  np.testing.assert_allclose(found['teacher_mass'], expected, rtol=1e-5)
  assert 0.1 < found['teacher_mass'] < 0.99
  for name in BOUNDS:
    assert 0 < found[name] < live[name]
  np.testing.assert_allclose(found['loss/best'], live['loss/best'], rtol=1e-5)


def test_the_loss_is_that_of_the_joined_outcomes():
  """Written out, with its gradient, on the student's own parameters."""
  _, params, *_ = models()
  student = models()[0]
  known = cached(3).responses['teacher']
  ids, mask = known.teacher.ids, known.mask

  def formula(params):
    log_q = log_probs(student, params, batch().prompt, known)
    theirs, ours = (
      jnp.take_along_axis(jnp.exp(x), ids, -1) for x in (log_p(), log_q)
    )
    theirs, ours = (
      jnp.concatenate((x, 1 - x.sum(-1, keepdims=True)), -1)
      for x in (theirs, ours)
    )
    kl = jnp.where(mask[..., None], theirs * jnp.log(theirs / ours), 0.0)
    return kl.sum() / mask.sum()

  value, grads = jax.value_and_grad(formula)(params)
  state, metrics = update(3, 'kd')
  assert_near(metrics['loss'][0], value)
  expected = jax.tree.map(jnp.subtract, params, grads)
  assert_near(state.params['student'], expected)


@pytest.mark.slow
def test_micro_batches_and_phases_do_not_change_the_update():
  state, metrics = update(3, 'kd')
  other, found = update(3, 'kd', micro_batch=2)
  assert_close((other.params, found), (state.params, metrics))
  run = program('kd')
  around = lambda phase, part: part()
  other, found = run.update(fresh(run), {}, cached(3), 0, around=around)
  assert_close((other.params, found), (state.params, metrics))


@pytest.mark.slow
def test_other_terms_and_tasks_read_what_they_read():
  """A live teacher here, a cache there; metrics are named by what they read."""
  there = dataclasses.replace(TERMS['kd'], task='more')
  goal = Objective((TERMS['gold'], there, TERMS['sft'])).caching({'more'})
  assert goal.models() == {'teacher'}
  run = step.Program(settings(goal, measure_every=1))
  given = dataclasses.replace(batch(), tasks={'more': cached(3)})
  found = means(run.update(fresh(run), frozen(), given, 0)[1])
  alone, live = means(update(3, 'kd')[1]), means(update(0, 'gold')[1])
  np.testing.assert_allclose(found['loss/kd'], alone['loss'], rtol=1e-5)
  np.testing.assert_allclose(found['loss/gold'], live['loss'], rtol=1e-5)
  assert found['teacher_mass/more/teacher'] == alone['teacher_mass']
  assert 'teacher_mass/data' not in found
  assert {'reverse_kl/data', 'reverse_kl/more/teacher'} <= set(found)


def test_numbers_that_programs_share_leave_the_temperature_out():
  """A traced one could be any, of which the cache knows nothing."""
  shared = update(3, 'kd', shared=True)[1]['loss']
  assert_close(shared, update(3, 'kd')[1]['loss'])
  goal = Objective(tuple(TERMS.values()))
  assert 'temperature' in goal.numbers()['kd']
  numbers = goal.caching({''}).numbers()
  assert 'temperature' not in numbers['kd'] and numbers['jsd'] == {
    'weight': 0.5
  }


def test_only_what_is_read_is_carried():
  run = program('kd', 'sft')
  given = cached(3)
  (theirs, data), _ = run.rollout(fresh(run), {}, given, 0)
  assert theirs.teacher.ids.shape == (B, T, 3) and data.teacher is None
  run = program('seqkd')
  (theirs,), _ = run.rollout(fresh(run), {}, given, 0)
  assert theirs.teacher is None


def test_what_a_cache_cannot_give_is_refused():
  goal = Objective(
    (
      Term('a', 'forward_kl', {'teacher': 0.5, 'data': 0.5}),
      Term('b', 'engine', 'teacher'),
      Term('c', 'forward_kl', 'teacher', loss_args={'temperature': 2.0}),
      Term('d', 'hidden_distance', 'teacher'),
      Term('e', 'cross_entropy', 'data'),
    ),
    cached=frozenset({''}),
  )
  found = goal.cache_problems()
  assert [each[: len("term 'a'")] for each in found] == [
    f'term {name!r}' for name in 'abcd'
  ]
  assert "on ['data', 'teacher'], but only the cached responses" in found[0]
  assert 'engine reads more of the teacher' in found[1]
  assert 'loss_args.temperature=2.0' in found[2]
  with pytest.raises(ValueError, match='engine reads more'):
    step.Program(settings(goal))
  run = program('kd')
  with pytest.raises(ValueError, match="responses of 'teacher' have none"):
    run.update(fresh(run), {}, batch(), 0)


def test_rehearsal_reads_a_cache_too():
  run, params = program(*SOFT), {'student': models()[1]}
  run.rehearse(params, {}, cached(3), 0)
  narrow = jax.tree.map(lambda x: x, cached(3))
  theirs = narrow.responses['teacher']
  wide = losses.top_k(jnp.zeros((B, T, V + 1)), V + 1)
  narrow.responses['teacher'] = types.Response(
    theirs.tokens, theirs.mask, teacher=wide
  )
  with pytest.raises(ValueError, match=f'k={V + 1} does not fit'):
    run.rehearse(params, {}, narrow, 0)
