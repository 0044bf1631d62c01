"""Every response of a language model small enough to list them all.

Expectations over samples become sums over responses, weighed by their
probability: what an estimator is on average is then compared exactly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import optimizers, recipes, state, step, testing, types
from kdjax.objective import Objective

V, T, EOS = 3, 3, 1
SGD = optimizers.OptimizerConfig(name='sgd', learning_rate=1.0, clip_norm=None)
PROMPT = types.Prompt(jnp.array([[2, 0]]), jnp.ones((1, 2), bool))


@functools.cache
def models():
  """A student, a teacher of another width, and their parameters."""
  student, params = testing.tabular(jax.random.key(0), vocab_size=V, width=3)
  teacher, fixed = testing.tabular(jax.random.key(1), vocab_size=V, width=5)
  return student, params, teacher, fixed


@functools.cache
def sequences():
  """All responses [N, T]: through the first EOS, or T tokens without one."""
  tokens = np.asarray(testing.responses(V, T))
  ended = np.cumsum(tokens == EOS, 1) - (tokens == EOS) > 0
  kept = np.unique(np.where(ended, 0, tokens) * 10 + ~ended, axis=0)
  return types.Response(jnp.asarray(kept // 10), jnp.asarray(kept % 10 == 1))


def logits(model, params, response=None):
  """The logits [N, T, V] on all responses."""
  response = sequences() if response is None else response
  rows = response.tokens.shape[0]
  prompt = jax.tree.map(lambda x: jnp.repeat(x, rows, 0), PROMPT)
  hidden = model.hidden_states(params, prompt, response.tokens)
  return model.head(params, hidden)


def log_probabilities(model, params):
  """log-probability [N] of each response; they add up to 1."""
  response = sequences()
  scores = jax.nn.log_softmax(logits(model, params))
  each = jnp.take_along_axis(scores, response.tokens[..., None], -1)[..., 0]
  return jnp.sum(each * response.mask, -1)


def program(recipe, **args):
  """The step of a recipe, or of an objective, by plain gradient descent."""
  student, _, teacher, _ = models()
  options = args.pop('settings', {})
  goal = recipe
  if not isinstance(recipe, Objective):
    goal = recipes.build(recipe, **args)
  return step.Program(
    step.Settings(
      student=student,
      teacher=teacher,
      objective=goal,
      optimizer=optimizers.build(SGD),
      max_new_tokens=T,
      **options,
    )
  )


def gradient(made, response, judged=None, frozen=None, params=None):
  """The gradient of one step on given responses, one to each draw."""
  start = models()[1] if params is None else params
  frozen = {'teacher': models()[3], 'reference': start, **(frozen or {})}
  draws = made.settings.objective.draws()
  responses = response if isinstance(response, tuple) else (response,)
  responses = responses * (len(draws) // len(responses))
  first = jax.tree.leaves(responses)[0].shape[0]
  rows = first // made.settings.samples
  batch = types.Batch(jax.tree.map(lambda x: jnp.repeat(x, rows, 0), PROMPT))
  before = state.create(
    {'student': jax.tree.map(jnp.array, start)}, made.settings.optimizer, 0
  )
  scored, _ = made.score(before, frozen, batch, responses, judged)
  after, metrics = made.learn(before, frozen, scored)
  moved = after.params['student']
  return jax.tree.map(jnp.subtract, start, moved), metrics


def expected_gradient(made, *, weights=None, behaviour=None, rewards=None):
  """The gradient of a step on one response, on average over responses.

  Args:
    made: the program.
    weights: [N] probability of each response; the student's by default.
    behaviour: [N, T] log-probabilities that they were sampled with.
    rewards: [N] of the caller's, by name.
  """
  student, params, _, _ = models()
  if weights is None:
    weights = jnp.exp(log_probabilities(student, params))
  total = None
  for i, weight in enumerate(np.asarray(weights)):
    logprobs = None if behaviour is None else behaviour[i : i + 1]
    response = jax.tree.map(lambda x, i=i: x[i : i + 1], sequences())
    response = types.Response(response.tokens, response.mask, logprobs)
    judged = None
    if rewards:
      one = {name: jnp.asarray(r[i : i + 1]) for name, r in rewards.items()}
      judged = (one,) * len(made.settings.objective.draws())
    found, _ = gradient(made, response, judged)
    scaled = jax.tree.map(lambda g, w=weight: g * w, found)
    total = scaled if total is None else jax.tree.map(jnp.add, total, scaled)
  return total


def assert_close(found, expected, rtol=2e-4):
  """Compares gradients; float32 sums of some fifteen terms near 1."""
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(
      a, b, rtol=0, atol=rtol * max(1, np.max(np.abs(b)))
    )
