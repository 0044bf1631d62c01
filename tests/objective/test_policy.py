"""Advantages by hand, and the losses that they weigh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.objective import LOSSES, Reading, Target, Term, View
from kdjax.objective.policy import BASELINES, target

NAN = np.nan
# What stands off the mask never matters, not even NaN.
REWARDS = [[1, 2, 4], [8, -2, NAN], [NAN, NAN, NAN], [3, NAN, NAN]]
MASK = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)


def view(rewards=REWARDS, mask=MASK, **more):
  mask = jnp.asarray(mask)
  response = types.Response(jnp.zeros(mask.shape, jnp.int32), mask)
  rewards = {'r': rewards, **more}
  arrays = {k: jnp.array(v, jnp.float32) for k, v in rewards.items()}
  return View(None, response, mask.any(-1), rewards=arrays)


def advantages(*views, group=2, **args):
  views = views or (view(),)
  return target(views, reward='r', group=group, **args).values


def assert_rows(found, rows, mask=MASK):
  """Compares with rows of as many numbers as each response has tokens."""
  expected = np.zeros(mask.shape)
  expected[mask] = np.concatenate([np.ravel(row) for row in rows])
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'args, rows',
  [
    ({}, [[7, 6, 4], [6, -2], [3]]),
    ({'reward_scale': 2.0}, [[3.5, 3, 2], [3, -1], [1.5]]),
    ({'reward_clip': 2.0}, [[5, 4, 2], [0, -2], [2]]),
    # Divided first, clipped then.
    (
      {'reward_scale': 4.0, 'reward_clip': 1.0},
      [[1.75, 1.5, 1], [0.5, -0.5], [0.75]],
    ),
    ({'discount': 0.5}, [[3, 4, 4], [7, -2], [3]]),
    ({'discount': 0.0}, [[1, 2, 4], [8, -2], [3]]),
    ({'length_normalized': True}, [[7 / 3, 3, 4], [3, -2], [3]]),
    ({'future_only': True}, [[6, 4, 0], [-2, 0], [0]]),
    # Each is divided by the tokens of its own return.
    (
      {'future_only': True, 'length_normalized': True},
      [[3, 4, 0], [-2, 0], [0]],
    ),
    ({'sparse': True}, [[7, 7, 7], [6, 6], [3]]),
    ({'sparse': True, 'discount': 0.5}, [[1.75, 3.5, 7], [3, 6], [3]]),
    # Clipped before they are added up.
    ({'sparse': True, 'reward_clip': 2.0}, [[5, 5, 5], [0, 0], [2]]),
  ],
)
def test_returns_by_hand(args, rows):
  assert_rows(advantages(**args), rows)


def test_a_response_is_compared_with_the_mean_of_the_others():
  # Returns 7, 6 and 3: the empty row takes no part.
  rows = [[2.5, 1.5, -0.5], [1, -7], [-3.5]]
  assert_rows(advantages(baseline='mean'), rows)
  # What they are compared by is what they are worth: G_1 of 6, -2 and 0.
  rows = [[7, 5, 1], [-5, -3], [-2]]
  assert_rows(advantages(baseline='mean', future_only=True), rows)


def test_the_mean_of_the_others_is_blind_to_a_response():
  """Or the baseline would shrink the gradient by 1 / B."""
  other = [REWARDS[0], REWARDS[1], REWARDS[2], [100, NAN, NAN]]
  before, after = (
    advantages(view(r), baseline='mean') for r in (REWARDS, other)
  )
  np.testing.assert_allclose(after[3, 0] - before[3, 0], 97, rtol=1e-5)
  alone = np.array([[1, 1, 1], [0, 0, 0]], bool)
  found = advantages(view(REWARDS[:2], alone), baseline='mean')
  assert_rows(found, [[7, 6, 4]], alone)


def test_whitened_advantages_have_mean_0_and_variance_1():
  # Of the six tokens' 7, 6, 4, 6, -2, 3: mean 4, variance 9.
  rows = [[1, 2 / 3, 0], [2 / 3, -2], [-1 / 3]]
  found = advantages(baseline='whiten')
  assert_rows(found, rows)
  on = np.asarray(found)[MASK]
  np.testing.assert_allclose([on.mean(), on.var()], [0, 1], atol=1e-6)


def test_groups_compare_the_samples_of_a_prompt():
  mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]], bool)
  rewards = [REWARDS[0], REWARDS[1], [5, NAN, NAN], [3, NAN, NAN]]
  # Totals 7 and 6 of one prompt, 5 and 3 of another: one number a response.
  rows = [[0.5] * 3, [-0.5] * 2, [1], [-1]]
  found = advantages(view(rewards, mask), baseline='group_mean')
  assert_rows(found, rows, mask)
  # The sample's standard deviation, 1e-4 added to it (GRPO's in TRL).
  deviations = 0.5 * 2**0.5 + 1e-4, 2**0.5 + 1e-4
  rows = [
    np.divide(row, deviations[i // 2]).tolist() for i, row in enumerate(rows)
  ]
  found = advantages(view(rewards, mask), baseline='group')
  assert_rows(found, rows, mask)


def test_the_greedy_response_is_the_baseline():
  """Its reward counts whole, however short the sample is."""
  longer = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]], bool)
  greedy = view([[1, 1, 1], [1, 1, 1], [2, NAN, NAN], [0, 1, 1]], longer)
  rows = [[4, 3, 1], [3, -5], [1]]
  assert_rows(advantages(view(), greedy, group=1, baseline='greedy'), rows)
  rows = [[4, 4, 4], [3, 3], [1]]
  found = advantages(view(), greedy, group=1, baseline='greedy', sparse=True)
  assert_rows(found, rows)
  scaled = advantages(
    view(), greedy, group=1, baseline='greedy', sparse=True, reward_scale=2.0
  )
  np.testing.assert_allclose(scaled, found / 2, rtol=1e-6)


def test_one_greedy_response_serves_all_samples_of_its_prompt():
  greedy = view([[5, NAN, NAN], [1, 1, NAN]], MASK[[3, 1]])
  found = advantages(view(), greedy, group=2, baseline='greedy')
  assert_rows(found, [[2, 1, -1], [1, -7], [1]])


def test_the_teachers_value_is_a_baseline_of_each_state():
  values = [[1, 2, 3], [4, 5, NAN], [NAN, NAN, NAN], [6, NAN, NAN]]
  both = view(teacher_baseline=values)
  rows = [[6, 4, 1], [2, -7], [-3]]
  found = advantages(both, baseline='teacher')
  assert_rows(found, rows)
  # A value is in the units of the rewards.
  halved = advantages(both, baseline='teacher', reward_scale=2.0)
  np.testing.assert_allclose(halved, found / 2, rtol=1e-6)


@pytest.mark.parametrize('baseline', BASELINES)
def test_what_stands_off_the_mask_never_matters(baseline):
  def found(off):
    filled = np.where(MASK, REWARDS, off)
    values = np.where(MASK, 1.0, off)
    views = (view(filled, teacher_baseline=values), view(filled))
    return target(
      views, reward='r', group=2 if 'group' in baseline else 1,
      baseline=baseline,
    )  # fmt: skip

  clean, broken = found(0.0), found(np.inf)
  np.testing.assert_array_equal(broken.values, clean.values)
  assert np.all(np.isfinite(clean.values))
  assert np.all(np.asarray(clean.values)[~MASK] == 0)
  np.testing.assert_array_equal(clean.mask, MASK)


@pytest.mark.parametrize('baseline', BASELINES)
def test_a_batch_without_responses_has_no_advantages(baseline):
  none = view(np.full((2, 3), NAN), np.zeros((2, 3), bool))
  none.rewards['teacher_baseline'] = none.rewards['r']
  found = target(
    (none, none), reward='r', group=2 if 'group' in baseline else 1,
    baseline=baseline,
  )  # fmt: skip
  np.testing.assert_array_equal(found.values, np.zeros((2, 3)))


def test_settings_may_be_traced():
  rewards = jnp.asarray(np.where(MASK, REWARDS, 0.0), jnp.float32)

  def found(rewards, scale, clip, discount):
    one = View(None, view().response, MASK.any(-1), rewards={'r': rewards})
    return advantages(
      one, reward_scale=scale, reward_clip=clip, discount=discount
    )

  expected = found(rewards, 4.0, 1.0, 0.5)
  traced = jax.jit(found)(rewards, *map(jnp.float32, (4.0, 1.0, 0.5)))
  np.testing.assert_allclose(traced, expected, rtol=1e-6)
  assert_rows(expected, [[0.75, 1, 1], [0.75, -0.5], [0.75]])


# The losses.


def reading(behaviour=True):
  keys = jax.random.split(jax.random.key(0), 3)
  logits = 2 * jax.random.normal(keys[0], (*MASK.shape, 5))
  tokens = jax.random.randint(keys[1], MASK.shape, 0, 5)
  sampled = -2 * jax.random.uniform(keys[2], MASK.shape)
  response = types.Response(
    tokens, jnp.asarray(MASK), sampled if behaviour else None
  )
  return Reading(View(None, response, MASK.any(-1)), logits)


def logprobs(found):
  """log q of the tokens; 0 off the mask."""
  scores = jax.nn.log_softmax(found.logits)
  tokens = found.view.response.tokens[..., None]
  each = jnp.take_along_axis(scores, tokens, -1)[..., 0]
  return jnp.where(MASK, each, 0.0)


A = jnp.asarray(np.where(MASK, [[2, -1, 0.5]], 0.0), jnp.float32)


def values(name, read, **args):
  term = Term('t', name, 'student', reward='r', loss_args=args)
  return term.values(jnp.int32(0), (read,), Target(jnp.asarray(MASK), A))


@pytest.mark.parametrize('clip', [None, 0.2])
def test_importance_weights_are_of_the_policy_that_sampled(clip):
  read = reading()
  found, metrics = values('policy_gradient', read, clip=clip)
  q, b = logprobs(read), read.view.response.sampling_logprobs
  ratio = np.exp(q - b)
  gain = ratio * A
  if clip:
    gain = np.minimum(gain, np.clip(ratio, 1 - clip, 1 + clip) * A)
    assert np.any(gain != ratio * A)
  np.testing.assert_allclose(
    np.where(MASK, found, 0), np.where(MASK, -gain, 0), rtol=1e-5, atol=1e-6
  )
  expected = losses.policy_gradient(q, A, behaviour_logprobs=b, clip=clip)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(metrics['ratio'], ratio, rtol=1e-5)


def test_without_importance_weights_it_is_reinforce():
  for read in (reading(), reading(behaviour=False)):
    found, metrics = values('policy_gradient', read, importance=False)
    np.testing.assert_allclose(found, -A * logprobs(read), rtol=1e-5, atol=1e-6)
    assert metrics == {}


def test_samples_are_asked_for_where_their_log_probabilities_are_read():
  def needs(name, **args):
    return Term('t', name, 'student', reward='r', loss_args=args).needs()

  assert needs('policy_gradient') == {'reward', 'samples'}
  assert needs('policy_gradient', importance=False) == {'reward'}
  assert needs('weighted_reinforce') == {'reward', 'samples'}


@pytest.mark.parametrize('return_clip', [None, 0.7])
def test_weighted_reinforce_weighs_the_score_by_a_clipped_return(return_clip):
  read = reading()
  q, b = logprobs(read), read.view.response.sampling_logprobs
  weights = np.exp(q - b) * A
  if return_clip:
    assert np.any(np.abs(weights) > return_clip)
    weights = np.clip(weights, -return_clip, return_clip)
  found, metrics = values('weighted_reinforce', read, return_clip=return_clip)
  np.testing.assert_allclose(found, -weights * q, rtol=1e-5, atol=1e-6)
  assert metrics == {}

  # The gradient of log q alone is weighed: the return is a constant.
  def total(logits):
    each = read._replace(logits=logits)
    one, _ = values('weighted_reinforce', each, return_clip=return_clip)
    return jnp.sum(jnp.where(MASK, one, 0.0))

  def score(logits):
    return jnp.sum(-weights * logprobs(read._replace(logits=logits)))

  np.testing.assert_allclose(
    jax.grad(total)(read.logits), jax.grad(score)(read.logits), atol=1e-6
  )


@pytest.mark.parametrize('name', ['policy_gradient', 'weighted_reinforce'])
def test_both_gradients_are_reinforces_on_policy(name):
  read = reading()
  response = read.view.response
  fresh = types.Response(response.tokens, response.mask, logprobs(read))
  read = read._replace(view=View(None, fresh, MASK.any(-1)))

  def gradient(name, **args):
    def total(logits):
      found, _ = values(name, read._replace(logits=logits), **args)
      return jnp.sum(jnp.where(MASK, found, 0.0))

    return jax.grad(total)(read.logits)

  expected = gradient('policy_gradient', importance=False)
  np.testing.assert_allclose(gradient(name), expected, rtol=1e-5, atol=1e-6)
  assert np.all(np.asarray(expected)[~MASK] == 0)


def test_every_policy_gradient_takes_the_same_returns():
  shared = set(LOSSES['weighted_reinforce'].args) - {'return_clip'}
  assert set(LOSSES['policy_gradient'].args) == shared | {'importance', 'clip'}
