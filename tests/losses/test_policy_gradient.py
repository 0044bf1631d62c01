"""Surrogate losses against exact gradients, by enumeration of all responses."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing, types
from kdjax.losses import divergences
from kdjax.losses.policy_gradient import (
  kl_estimate,
  policy_gradient,
  weighted_reinforce,
)

V, T, EOS = 3, 3, 1


def every_response(length):
  """All distinct responses: past the first EOS there is one padding only."""
  tokens = testing.responses(V, length)
  ended = jnp.cumsum(tokens == EOS, 1)
  mask = jnp.cumsum(ended, 1) <= 1
  keep = np.array((mask | (tokens == 0)).all(1))
  return tokens[keep], mask[keep]


TOKENS, MASK = every_response(T)
FIRST, FIRST_MASK = every_response(1)
MODEL = testing.tabular(jax.random.key(0), vocab_size=V, width=4)[0]


def policy(seed):
  """Parameters of a random model."""
  return MODEL.init(jax.random.key(seed))


@jax.jit
def logits(params, tokens=TOKENS):
  """[N, T, V] of every response after one prompt."""
  rows = len(tokens)
  prompt = types.Prompt(jnp.full((rows, 1), 2), jnp.ones((rows, 1), bool))
  return MODEL.head(params, MODEL.hidden_states(params, prompt, tokens))


@jax.jit
def logprobs(params, tokens=TOKENS):
  """[N, T], of the responses' tokens."""
  log_q = jax.nn.log_softmax(logits(params, tokens))
  return jnp.take_along_axis(log_q, tokens[..., None], -1)[..., 0]


@jax.jit
def sequence_logprobs(params, tokens=TOKENS, mask=MASK):
  """[N], of whole responses."""
  return jnp.where(mask, logprobs(params, tokens), 0.0).sum(1)


def probabilities(params, tokens=TOKENS, mask=MASK):
  return jnp.exp(sequence_logprobs(params, tokens, mask))


def expected(sampler, values, tokens=TOKENS, mask=MASK):
  """E of the sum of values [N, T], over fixed samples of a policy."""
  total = jnp.where(mask, values, 0.0).sum(1)
  return jax.lax.stop_gradient(probabilities(sampler, tokens, mask)) @ total


def gradient(function, params):
  return jax.jit(jax.grad(function))(params)


def assert_same(actual, wanted, factor=1.0, atol=2e-6):
  """Asserts that actual = factor * wanted, and that there's something to it."""
  assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(wanted)) > 0.02
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, factor * y, rtol=0, atol=atol),
    actual,
    wanted,
  )


def differ(actual, wanted):
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(wanted))
  return max(float(jnp.abs(x - y).max()) for x, y in pairs)


STUDENT, TEACHER, BEHAVIOUR = policy(1), policy(2), policy(3)
TEACHER_LOGITS = logits(TEACHER)
# A reward of state and token: what is to come decides nothing.
REWARD = 1 + logprobs(policy(5))
SCORES = jnp.where(MASK, REWARD, 0.0).sum(1)


def minus_expected_score(params, scores=SCORES):
  """The exact objective, through the probabilities of all responses."""
  return -probabilities(params) @ scores


def test_every_response_is_there_once():
  for params in (STUDENT, TEACHER, BEHAVIOUR):
    np.testing.assert_allclose(probabilities(params).sum(), 1, rtol=1e-5)
  lengths = np.array(MASK.sum(1))
  assert (np.bincount(lengths) == [0, 1, 2, 12]).all()


# LLMR.


@pytest.mark.parametrize('value', ['max', 'expectation'])
@pytest.mark.parametrize('baseline', [True, False])
def test_llmr_ascends_the_expected_induced_reward(value, baseline):
  reward = losses.induced_reward(TEACHER_LOGITS, TOKENS, MASK, value=value)
  returns = losses.reward_to_go(reward, MASK)
  if baseline:
    returns -= losses.teacher_baseline(TEACHER_LOGITS)

  def surrogate(params):
    log_q = logprobs(params)
    return expected(params, policy_gradient(log_q, returns))

  def weighted(params):
    log_q = logprobs(params)
    loss = weighted_reinforce(log_q, returns, behaviour_logprobs=log_q)
    return expected(params, loss)

  exact = gradient(
    lambda params: minus_expected_score(params, reward.sum(1)), STUDENT
  )
  assert_same(gradient(surrogate, STUDENT), exact, atol=1e-5)
  assert_same(gradient(weighted, STUDENT), exact, atol=1e-5)


def test_a_potential_leaves_the_expected_gradient_as_it_is():
  reward = losses.induced_reward(TEACHER_LOGITS, TOKENS, MASK)
  # Any function of the state; the tokens before decide the hidden state.
  potential = 3 * logits(policy(4))[..., 0]
  following = jnp.where(MASK[:, 1:], potential[:, 1:], 0.0)
  shaped = reward + potential - jnp.pad(following, ((0, 0), (0, 1)))

  def surrogate(params, reward):
    returns = losses.reward_to_go(reward, MASK)
    return expected(params, policy_gradient(logprobs(params), returns))

  plain = gradient(functools.partial(surrogate, reward=reward), STUDENT)
  other = gradient(functools.partial(surrogate, reward=shaped), STUDENT)
  assert_same(other, plain, atol=1e-5)
  # Not so the potential's own function of the action.
  wrong = jnp.where(MASK, reward + potential, 0.0)
  wrong = gradient(functools.partial(surrogate, reward=wrong), STUDENT)
  assert differ(wrong, plain) > 0.1


def test_dense_and_sparse_rewards_agree_in_expectation():
  reward = losses.induced_reward(TEACHER_LOGITS, TOKENS, MASK)

  def surrogate(params, reward):
    returns = losses.reward_to_go(reward, MASK)
    return expected(params, policy_gradient(logprobs(params), returns))

  sparse = losses.sparse_reward(reward, MASK)
  assert_same(
    gradient(functools.partial(surrogate, reward=sparse), STUDENT),
    gradient(functools.partial(surrogate, reward=reward), STUDENT),
    atol=1e-5,
  )


# MiniLLM.


def exact_reverse_kl(params):
  """KL(q || p) of whole responses, differentiated through all of it."""
  log_q = sequence_logprobs(params)
  return jnp.exp(log_q) @ (log_q - sequence_logprobs(TEACHER))


def minillm_surrogate(params, own, single_step):
  """Returns with or without r_t itself, and the exact divergence at s_t."""
  log_q = logprobs(params)
  reward = losses.reverse_kl_reward(logprobs(TEACHER), log_q, MASK)
  returns = losses.reward_to_go(reward, MASK) - (0 if own else reward)
  loss = policy_gradient(log_q, returns)
  if single_step:
    loss += divergences.reverse_kl(logits(params), TEACHER_LOGITS)
  return expected(params, loss)


def test_minillm_has_two_exact_gradients_and_its_code_adds_them_up():
  exact = gradient(exact_reverse_kl, STUDENT)

  def surrogate(**options):
    return gradient(functools.partial(minillm_surrogate, **options), STUDENT)

  assert_same(surrogate(own=True, single_step=False), exact, atol=1e-5)
  assert_same(surrogate(own=False, single_step=True), exact, atol=1e-5)
  assert differ(surrogate(own=True, single_step=True), exact) > 0.05
  assert differ(surrogate(own=False, single_step=False), exact) > 0.05


def test_minillm_scale_scales_the_gradient():
  def surrogate(params, scale):
    log_q = logprobs(params)
    reward = losses.reverse_kl_reward(
      logprobs(TEACHER), log_q, MASK, scale=scale, clip=100.0
    )
    returns = losses.reward_to_go(reward, MASK)
    return expected(params, policy_gradient(log_q, returns))

  doubled = gradient(functools.partial(surrogate, scale=0.5), STUDENT)
  assert_same(doubled, gradient(exact_reverse_kl, STUDENT), 2.0, atol=1e-5)


# GRPO.


@pytest.mark.parametrize('group_size', [2, 3])
def test_grpo_is_unbiased_up_to_the_share_of_its_own_reward(group_size):
  rows = range(len(TOKENS))
  groups = jnp.array(list(itertools.product(rows, repeat=group_size)))
  advantages = losses.group_advantages(
    SCORES[groups].reshape(-1), group_size, scale=False
  ).reshape(groups.shape)

  def surrogate(params):
    chance = jax.lax.stop_gradient(probabilities(params))[groups].prod(1)
    log_q = logprobs(params)[groups]
    loss = policy_gradient(
      log_q,
      advantages[..., None],
      behaviour_logprobs=log_q,
      clip=(0.2, 0.28),  # Of no effect at rho = 1.
    )
    loss = jnp.where(MASK[groups], loss, 0.0).sum(-1)
    return chance @ loss.mean(1)

  exact = gradient(minus_expected_score, STUDENT)
  got = gradient(surrogate, STUDENT)
  assert_same(got, exact, 1 - 1 / group_size, atol=5e-6)


# GKD + RL.


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.0])
def test_gkd_with_a_reward_mixes_two_gradients(alpha):
  reward = losses.sparse_reward(REWARD, MASK)
  baseline = 0.7  # Any number.

  def divergence(params):
    return divergences.reverse_kl(logits(params), TEACHER_LOGITS)

  def surrogate(params):
    returns = losses.reward_to_go(reward, MASK) - baseline
    task = policy_gradient(logprobs(params), returns)
    lengths = MASK.sum(1, keepdims=True)
    loss = (1 - alpha) * task + alpha * divergence(params) / lengths
    return expected(params, loss)

  def exact(params, sampler):
    mean = jnp.where(MASK, divergence(params), 0.0).sum(1) / MASK.sum(1)
    distillation = probabilities(sampler) @ mean
    return (1 - alpha) * minus_expected_score(params) + alpha * distillation

  got = gradient(surrogate, STUDENT)
  assert_same(
    got, gradient(functools.partial(exact, sampler=STUDENT), STUDENT), atol=5e-6
  )
  if alpha:  # GKD doesn't differentiate the sampler.
    through = gradient(lambda params: exact(params, params), STUDENT)
    assert differ(got, through) > 0.01


# Importance weights.


def test_one_token_responses_are_reweighted_exactly():
  scores = jnp.array([[1.0], [-2.0], [0.5]])

  def surrogate(params, loss):
    log_q = logprobs(params, FIRST)
    log_b = logprobs(BEHAVIOUR, FIRST)
    values = loss(log_q, scores, behaviour_logprobs=log_b)
    return expected(BEHAVIOUR, values, FIRST, FIRST_MASK)

  exact = gradient(
    lambda params: -probabilities(params, FIRST, FIRST_MASK) @ scores[:, 0],
    STUDENT,
  )
  for loss in (policy_gradient, weighted_reinforce):
    got = gradient(functools.partial(surrogate, loss=loss), STUDENT)
    assert_same(got, exact)


def test_whole_responses_are_reweighted_exactly_as_one_token():
  def surrogate(params):
    loss = policy_gradient(
      sequence_logprobs(params)[:, None],
      SCORES[:, None],
      behaviour_logprobs=sequence_logprobs(BEHAVIOUR)[:, None],
    )
    return probabilities(BEHAVIOUR) @ loss[:, 0]

  exact = gradient(minus_expected_score, STUDENT)
  assert_same(gradient(surrogate, STUDENT), exact)


def test_product_ratios_are_exact_and_a_ratio_a_token_is_not():
  returns = losses.reward_to_go(REWARD, MASK)
  log_ratio = logprobs(STUDENT) - logprobs(BEHAVIOUR)
  weight = jnp.exp(jnp.where(MASK, log_ratio, 0.0).sum(1, keepdims=True))

  def product(params):
    loss = policy_gradient(logprobs(params), weight * returns)
    return expected(BEHAVIOUR, loss)

  def per_token(params):
    loss = policy_gradient(
      logprobs(params), returns, behaviour_logprobs=logprobs(BEHAVIOUR)
    )
    return expected(BEHAVIOUR, loss)

  exact = gradient(minus_expected_score, STUDENT)
  assert_same(gradient(product, STUDENT), exact, atol=5e-6)
  assert differ(gradient(per_token, STUDENT), exact) > 0.05
  # What it is: the same states and returns as b's, the actions of q. At q = b
  # that is exact again.
  assert_same(
    gradient(per_token, BEHAVIOUR), gradient(minus_expected_score, BEHAVIOUR)
  )


def test_a_ratio_a_token_ascends_the_behaviours_action_values():
  """E_b sum_t rho_t G_t = sum_s d_b(s) sum_a q(a | s) Q_b(s, a)."""
  returns = losses.reward_to_go(REWARD, MASK)
  chance = probabilities(BEHAVIOUR)

  def action_value(row, t):
    """Q_b after the row's first t tokens, for each of V tokens, and d_b."""
    seen = (TOKENS[:, :t] == TOKENS[row, :t]).all(1) & MASK[:, t]
    values = []
    for token in range(V):
      here = seen & (TOKENS[:, t] == token)
      mass = jnp.where(here, chance, 0.0)
      values.append((mass * returns[:, t]).sum() / mass.sum())
    return seen, jnp.array(values), jnp.where(seen, chance, 0.0).sum()

  states = {}
  for row, t in zip(*np.nonzero(np.array(MASK))):
    prefix = tuple(TOKENS[row, :t].tolist())
    if prefix not in states:
      states[prefix] = (row, t, *action_value(row, t)[1:])

  def exact(params):
    q = jax.nn.softmax(logits(params))
    terms = [d * (q[row, t] @ value) for row, t, value, d in states.values()]
    return -sum(terms)

  def per_token(params):
    loss = policy_gradient(
      logprobs(params), returns, behaviour_logprobs=logprobs(BEHAVIOUR)
    )
    return expected(BEHAVIOUR, loss)

  assert len(states) == 1 + 2 + 4
  assert_same(gradient(per_token, STUDENT), gradient(exact, STUDENT), atol=5e-6)


def test_kl_estimate_has_reverse_kl_for_value_and_forward_kl_for_gradient():
  student, teacher = logits(STUDENT, FIRST)[0], logits(TEACHER, FIRST)[0]
  log_p = jax.nn.log_softmax(teacher)[0]

  def estimate(student):
    log_q = jax.nn.log_softmax(student)[0]
    q = jax.lax.stop_gradient(jnp.exp(log_q))
    return q @ kl_estimate(log_q, log_p)

  def divergence(loss):
    summed = lambda student: loss(student, teacher).sum()
    return jax.jit(jax.value_and_grad(summed))(student)

  value, got = jax.jit(jax.value_and_grad(estimate))(student)
  _, forward = divergence(divergences.forward_kl)
  reverse_value, reverse = divergence(divergences.reverse_kl)
  np.testing.assert_allclose(value, reverse_value, rtol=1e-5)
  np.testing.assert_allclose(got, forward, atol=1e-6)
  assert jnp.abs(got - reverse).max() > 0.01
