"""Recipes on average over all responses: the gradients they promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, recipes, types
from kdjax.objective import Objective, Term
from tests import enumeration as e

REWARDS = jnp.asarray(np.random.default_rng(3).normal(size=15), jnp.float32)


def student_logprobs(params):
  return e.log_probabilities(e.models()[0], params)


def teacher_logprobs():
  return e.log_probabilities(e.models()[2], e.models()[3])


def token_logprobs(model, params):
  response = e.sequences()
  scores = jax.nn.log_softmax(e.logits(model, params))
  index = response.tokens[..., None]
  return jnp.take_along_axis(scores, index, -1)[..., 0] * response.mask


def exact(objective):
  """The gradient of a function of the log-probabilities of all responses."""
  return jax.grad(lambda params: objective(student_logprobs(params)))(
    e.models()[1]
  )


def expected_reward(rewards):
  return lambda log_q: jnp.sum(jnp.exp(log_q) * rewards)


def test_all_responses_are_listed():
  assert len(e.sequences().tokens) == 15
  np.testing.assert_allclose(
    jnp.exp(student_logprobs(e.models()[1])).sum(), 1, rtol=1e-5
  )


def test_reinforce_follows_the_expected_reward():
  made = e.program(
    'reinforce', reward='mine', baseline='none',
    settings={'rewards': {'mine': None}, 'decode': str},
  )  # fmt: skip
  found = e.expected_gradient(made, rewards={'mine': REWARDS})
  e.assert_close(found, exact(lambda q: -expected_reward(REWARDS)(q)))


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.0])
def test_gkd_rl_is_the_papers_objective(alpha):
  made = e.program(
    'gkd_rl', reward='mine', alpha=alpha, baseline='none',
    settings={'rewards': {'mine': None}, 'decode': str},
  )  # fmt: skip
  found = e.expected_gradient(made, rewards={'mine': REWARDS})
  student, params, teacher, fixed = e.models()
  sampled = jnp.exp(student_logprobs(params))
  mask = e.sequences().mask

  def objective(params):
    reward = expected_reward(REWARDS)(student_logprobs(params))
    values = losses.reverse_kl(
      e.logits(student, params), e.logits(teacher, fixed)
    )
    # Nothing differentiates the sampler of the divergence.
    each = jnp.sum(values * mask, -1) / mask.sum(-1)
    return -(1 - alpha) * reward + alpha * jnp.sum(sampled * each)

  e.assert_close(found, jax.grad(objective)(params))


def test_minillm_is_the_gradient_of_the_sequences_reverse_kl():
  # Undiscounted, not divided by lengths, and summed over each sequence: then
  # the exact step and the policy gradient of what follows are all of it.
  minillm = recipes.build(
    'minillm', lm_weight=0.0, length_normalized=False, clip=None,
    reward_clip=None,
  )  # fmt: skip
  goal = Objective(
    tuple(dataclasses.replace(term, normalize='sum') for term in minillm.terms)
  )
  behaviour = token_logprobs(*e.models()[:2])
  found = e.expected_gradient(e.program(goal), behaviour=behaviour)
  log_p = teacher_logprobs()
  expected = exact(lambda q: jnp.sum(jnp.exp(q) * (q - log_p)))
  e.assert_close(found, expected)


def test_minillms_importance_weights_undo_a_mixed_sampler():
  # For one-token responses the weight of a token is that of the response.
  student, params, teacher, fixed = e.models()
  response = e.sequences()
  first = jnp.arange(e.T) == 0
  short = types.Response(response.tokens, response.mask & first)
  mixed = 0.2 * jnp.exp(token_logprobs(teacher, fixed))
  mixed += 0.8 * jnp.exp(token_logprobs(student, params))
  goal = Objective(
    (
      Term(
        'policy', 'policy_gradient', 'student', normalize='sum',
        reward='reverse_kl',
      ),
    )
  )  # fmt: skip
  made, total = e.program(goal), None
  for token in range(e.V):
    i = int(np.flatnonzero(np.asarray(response.tokens[:, 0]) == token)[0])
    one = jax.tree.map(lambda x, i=i: x[i : i + 1], short)
    one = types.Response(one.tokens, one.mask, jnp.log(mixed[i : i + 1]))
    found, _ = e.gradient(made, one)
    found = jax.tree.map(lambda g, w=mixed[i, 0]: g * w, found)
    total = found if total is None else jax.tree.map(jnp.add, total, found)

  def objective(params):
    log_q = jax.nn.log_softmax(e.logits(student, params)[0, 0])
    log_p = jax.nn.log_softmax(e.logits(teacher, fixed)[0, 0])
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p))

  e.assert_close(total, jax.grad(objective)(params))


@pytest.mark.parametrize('reward', ['induced', 'induced_soft'])
def test_llmr_follows_the_expected_induced_reward(reward):
  value = {'induced': 'max', 'induced_soft': 'expectation'}[reward]
  response = e.sequences()
  rewards = losses.induced_reward(
    e.logits(*e.models()[2:]), response.tokens, response.mask, value=value
  )
  llmr = recipes.build(
    'llmr', reward=reward, scale=1.0, clip=None, entropy_weight=0.0,
    finished_only=False,
  )  # fmt: skip
  (term,) = llmr.terms
  goal = Objective((dataclasses.replace(term, normalize='sum'),))
  behaviour = token_logprobs(*e.models()[:2])
  found = e.expected_gradient(e.program(goal), behaviour=behaviour)
  totals = jnp.sum(rewards, -1)
  e.assert_close(found, exact(lambda q: -expected_reward(totals)(q)))


def test_sparse_rewards_have_the_same_expected_gradient():
  def gradient(**args):
    llmr = recipes.build(
      'llmr', clip=None, entropy_weight=0.0, finished_only=False, **args
    )
    (term,) = llmr.terms
    goal = Objective((dataclasses.replace(term, normalize='sum'),))
    behaviour = token_logprobs(*e.models()[:2])
    return e.expected_gradient(e.program(goal), behaviour=behaviour)

  e.assert_close(gradient(sparse=True), gradient())
  # A baseline that depends on the prefix alone changes no expectation.
  e.assert_close(gradient(baseline='teacher'), gradient())


def test_grpo_is_the_gradient_of_the_expected_reward():
  # Rewards centred on the group's mean, its own included, lose 1 / G of it.
  grpo = recipes.build('grpo', reward='mine', kl_weight=0.0, scale=False)
  (term,) = grpo.terms
  goal = Objective((dataclasses.replace(term, normalize='sum'),))
  made = e.program(
    goal,
    settings={
      'rewards': {'mine': None},
      'decode': str,
      'sampling': {'samples_per_prompt': 2},
    },
  )
  probabilities = np.exp(student_logprobs(e.models()[1]))
  behaviour = token_logprobs(*e.models()[:2])
  total = None
  for i in range(15):
    for j in range(15):
      rows = np.array([i, j])
      pair = jax.tree.map(lambda x, rows=rows: x[rows], e.sequences())
      pair = types.Response(pair.tokens, pair.mask, behaviour[rows])
      found, _ = e.gradient(made, pair, ({'mine': REWARDS[rows]},))
      weight = probabilities[i] * probabilities[j]
      found = jax.tree.map(lambda g, w=weight: g * w, found)
      total = found if total is None else jax.tree.map(jnp.add, total, found)
  e.assert_close(total, exact(lambda q: -0.5 * expected_reward(REWARDS)(q)))


def test_f_distills_exact_js_is_that_of_the_sequences():
  student, params, teacher, fixed = e.models()
  log_q, log_p = student_logprobs(params), teacher_logprobs()
  log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2)
  expected = 0.5 * jnp.sum(jnp.exp(log_p) * (log_p - log_m))
  expected += 0.5 * jnp.sum(jnp.exp(log_q) * (log_q - log_m))

  def value(**args):
    goal = recipes.build('f_distill', divergence='js', **args)
    total = 0.0
    for term, weights in zip(goal.terms, (log_p, log_q), strict=True):
      one = Objective((dataclasses.replace(term, normalize='sum'),))
      made = e.program(one)
      for i, weight in enumerate(np.exp(weights)):
        response = jax.tree.map(lambda x, i=i: x[i : i + 1], e.sequences())
        total += weight * e.gradient(made, response)[1]['loss'][0]
    return total

  np.testing.assert_allclose(value(mixture='exact'), expected, rtol=1e-4)
  assert abs(value() - expected) > 1e-3
