"""Rewards that models give: each token's, and what they add up to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.objective import REWARDS, Evidence
from kdjax.objective.rewards import spread

MASK = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
V = 4


def read(logits, tokens):
  """Applies functions of (logits, tokens) to all tokens at once."""
  return lambda function: function(logits, tokens)


def arrays():
  """The response, both models' logits, and a reward model's scores."""
  keys = jax.random.split(jax.random.key(0), 4)
  tokens = jax.random.randint(keys[0], MASK.shape, 0, V)
  teacher, student = (
    2 * jax.random.normal(key, (*MASK.shape, V)) for key in keys[1:3]
  )
  scores = jax.random.normal(keys[3], MASK.shape)
  response = types.Response(tokens, jnp.asarray(MASK))
  return response, teacher, student, scores


def evidence(response, teacher, student, scores):
  teacher, student = (
    None if logits is None else read(logits, response.tokens)
    for logits in (teacher, student)
  )
  return Evidence(response, teacher, student, scores)


def logprobs(logits, response):
  each = jax.nn.log_softmax(logits)
  each = jnp.take_along_axis(each, response.tokens[..., None], -1)[..., 0]
  return np.where(MASK, each, 0.0)


def test_likelihood_rewards_add_up_to_those_of_the_response():
  given = arrays()
  e = evidence(*given)
  p, q = (logprobs(logits, e.response) for logits in given[1:3])
  found = REWARDS['teacher_logprob'].values(e)
  np.testing.assert_allclose(found, p, rtol=1e-5, atol=1e-6)
  found = REWARDS['reverse_kl'].values(e)
  np.testing.assert_allclose(found, p - q, rtol=1e-5, atol=1e-6)


def test_induced_rewards_make_the_logits_optimal_values():
  """r_t + V(s_{t+1}) is the chosen token's centred logit (Hao et al.)."""
  given = arrays()
  e = evidence(*given)
  f = np.asarray(given[1] - given[1].mean(-1, keepdims=True))
  chosen = np.take_along_axis(f, np.asarray(e.response.tokens)[..., None], -1)
  soft = np.asarray(jax.nn.softmax(f))
  for name, value in (
    ('induced', f.max(-1)),
    ('induced_soft', (soft * f).sum(-1)),
  ):
    following = np.where(MASK, value, 0)[:, 1:]
    expected = chosen[..., 0] - np.pad(following, ((0, 0), (0, 1)))
    found = REWARDS[name].values(e)
    expected = np.where(MASK, expected, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_learned_rewards_add_up_to_the_score_of_the_response():
  e = evidence(*arrays())
  found = REWARDS['learned'].values(e)
  scores = np.asarray(e.scores)
  np.testing.assert_allclose(
    found.sum(-1), [scores[0, 2], scores[1, 1], 0], rtol=1e-5
  )
  # Each prefix's rewards, to that of the prefix.
  np.testing.assert_allclose(
    np.cumsum(found, -1)[MASK], scores[MASK], rtol=1e-5, atol=1e-6
  )


def test_the_teachers_baseline_is_the_value_it_expects():
  given = arrays()
  found = REWARDS['teacher_baseline'].values(evidence(*given))
  expected = np.where(MASK, losses.teacher_baseline(given[1]), 0)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('name', sorted(REWARDS))
def test_rewards_read_what_they_say_and_no_token_off_the_mask(name):
  given, reward = arrays(), REWARDS[name]
  clean = reward.values(evidence(*given))
  assert clean.shape == MASK.shape
  assert np.any(clean) and np.all(np.asarray(clean)[~MASK] == 0)
  models = ('teacher', 'student', 'reward')
  lacking = [
    x if m in reward.needs else None for m, x in zip(models, given[1:])
  ]
  found = reward.values(evidence(given[0], *lacking))
  np.testing.assert_array_equal(found, clean)
  # The value of the state after the last token is none.
  broken = []
  for array in given[1:]:
    mask = MASK.reshape(MASK.shape + (1,) * (array.ndim - 2))
    broken.append(jnp.where(mask, array, jnp.nan))
  found = reward.values(evidence(given[0], *broken))
  np.testing.assert_array_equal(found, clean)


def test_rewards_of_responses_stand_at_the_last_token():
  found = spread(jnp.array([2.0, 3.0, 5.0]), jnp.asarray(MASK))
  np.testing.assert_array_equal(found, [[0, 0, 2], [0, 3, 0], [0, 0, 0]])


def test_rewards_of_tokens_are_only_masked():
  rewards = jnp.where(MASK, jnp.arange(9.0).reshape(3, 3), jnp.nan)
  found = spread(rewards, jnp.asarray(MASK))
  np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 0], [0, 0, 0]])
