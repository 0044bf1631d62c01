"""Reward models: what they score, and what they learn from."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import types
from kdjax.objective import LOSSES, Reading, Target, Term, View
from kdjax.objective.reward_models import init_head, scores

HEAD = {'kernel': jnp.array([1.0, -2.0]), 'bias': jnp.array(0.5)}
MASK = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
# The hidden state after the last token; NaN after what is masked off.
LAST = jnp.array([[3.0, 1.0], [0.0, 1.0], [2.0, 2.0]])
SCORES = np.array([1.5, -1.5, -1.5])


def reading(last=LAST, mask=MASK):
  place = np.maximum(mask.sum(-1) - 1, 0)
  after = np.where(mask[..., None], [7.0, 7.0], np.nan)
  after[np.arange(len(mask)), place] = last
  response = types.Response(jnp.zeros(mask.shape, jnp.int32), jnp.asarray(mask))
  view = View(None, response, mask.any(-1))
  return Reading(view, None, after=jnp.asarray(after, jnp.float32))


def test_every_prefix_has_a_score():
  after = jnp.array([[[1.0, 1.0], [3.0, 1.0]]])
  found = scores(HEAD, after.astype(jnp.bfloat16))
  np.testing.assert_array_equal(found, [[-0.5, 1.5]])
  assert found.dtype == jnp.float32


def test_a_fresh_head_gives_scores_of_unit_size():
  """Whatever the width: of features of unit size."""
  for width in (4, 64):
    keys = jax.random.split(jax.random.key(0), 400)
    heads = jax.vmap(lambda key, width=width: init_head(key, width))(keys)
    found = jax.vmap(scores, (0, None))(heads, jnp.ones(width))
    # The standard error of a standard deviation from 400: 0.035.
    np.testing.assert_allclose(found.std(), 1, atol=0.15)
    np.testing.assert_array_equal(heads['bias'], 0)


def test_regression_by_hand_at_the_last_token():
  term = Term('t', 'reward_regression', 'teacher', reward='bleu')
  rewards = jnp.array([1.0, -0.5, 0.5])
  target = Target(jnp.ones(3, bool), rewards)
  found, metrics = term.values(0, (reading(),), target, HEAD)
  np.testing.assert_allclose(found, (SCORES - rewards) ** 2, rtol=1e-6)
  np.testing.assert_allclose(
    metrics['absolute_error'], np.abs(SCORES - rewards), rtol=1e-6
  )


def test_bradley_terry_by_hand_at_the_last_tokens():
  term = Term('t', 'bradley_terry', {'chosen': 'data', 'rejected': 'rejected'})
  mask = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
  worse = reading(jnp.array([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0]]), mask)
  target = Target(jnp.ones(3, bool))
  found, metrics = term.values(0, (reading(), worse), target, HEAD)
  margin = SCORES - [0.5, 1.5, -1.5]
  np.testing.assert_allclose(found, np.log1p(np.exp(-margin)), rtol=1e-6)
  # A tie is no success.
  np.testing.assert_array_equal(metrics['accuracy'], [1, 0, 0])


def test_only_the_last_token_of_a_response_is_read():
  term = Term('t', 'reward_regression', 'teacher', reward='bleu')
  read = reading()

  def total(after):
    target = Target(jnp.ones(3, bool), jnp.zeros(3))
    return term.values(0, (read._replace(after=after),), target, HEAD)[0].sum()

  gradient = jax.grad(total)(jnp.where(MASK[..., None], read.after, 0.0))
  expected = np.zeros((3, 3, 2))
  expected[range(3), [2, 1, 0]] = 2 * SCORES[:, None] * HEAD['kernel']
  np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_the_target_is_the_reward_of_the_whole_response():
  mask = jnp.array([[True, True], [True, False], [False, False]])
  response = types.Response(jnp.zeros((3, 2), jnp.int32), mask)
  rewards = jnp.array([[1.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
  view = View(None, response, mask.any(-1), rewards={'bleu': rewards})
  found = LOSSES['reward_regression'].target((view,), reward='bleu', group=1)
  np.testing.assert_array_equal(found.values, [3.0, 4.0, 0.0])
  np.testing.assert_array_equal(found.mask, [True, True, False])


def test_empty_responses_are_harmless():
  empty = reading(jnp.zeros((2, 2)), np.zeros((2, 3), bool))
  pair = Term('t', 'bradley_terry', {'chosen': 'data', 'rejected': 'rejected'})
  mask = LOSSES['bradley_terry'].target((empty.view,) * 2).mask
  found, _ = pair.values(0, (empty, empty), Target(mask), HEAD)
  assert not np.any(mask) and np.all(np.isfinite(found))


def test_the_head_fits_the_student():
  student, teacher = (
    {'after': jax.ShapeDtypeStruct((1, 2, width), jnp.float32)}
    for width in (6, 9)
  )
  for name in ('reward_regression', 'bradley_terry'):
    head = LOSSES[name].auxiliary(jax.random.key(0), student, teacher)
    assert {k: v.shape for k, v in head.items()} == {'kernel': (6,), 'bias': ()}
