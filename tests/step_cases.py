"""What the tests of the step share: tabular models, batches and a formula.

Their sizes are awkward on purpose: the teacher is of another width, its head
has padded rows, and one example has no response at all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import optimizers, recipes, state, step, testing, types

B, S, T, V = 6, 3, 5, 5
SGD = optimizers.OptimizerConfig(name='sgd', learning_rate=1.0, clip_norm=None)
# A float32 sum of 1e3 numbers in two orders.
CLOSE = {'rtol': 1e-5, 'atol': 1e-6}


@functools.cache
def models():
  student, params = testing.tabular(jax.random.key(0), vocab_size=V, width=4)
  teacher, teacher_params = testing.tabular(
    jax.random.key(1), vocab_size=V + 3, num_tokens=V, width=6
  )
  # What a sampler or a softmax over padded rows would fall for.
  kernel = teacher_params['kernel'].at[:, V:].set(9.0)
  return student, params, teacher, {**teacher_params, 'kernel': kernel}


def response(seed, length=T):
  rng = np.random.default_rng(seed)
  lengths = np.append(rng.integers(1, length + 1, B - 1), 0)
  mask = np.arange(length) < lengths[:, None]
  tokens = rng.integers(2, V, (B, length))
  return types.Response(jnp.asarray(tokens * mask), jnp.asarray(mask))


@functools.cache
def batch(length=T):
  rng = np.random.default_rng(7)
  prompt = lambda: types.Prompt(
    jnp.asarray(rng.integers(0, V, (B, S))),
    jnp.asarray(rng.random((B, S)) < 0.8),
  )
  return types.Batch(
    prompt=prompt(),
    responses={'data': response(1, length), 'teacher': response(2)},
    example_id=jnp.asarray(rng.permutation(100)[:B], jnp.int32),
  )


def settings(goal, *, optimizer=SGD, **options):
  student, _, teacher, _ = models()
  options = {
    'student': student,
    'teacher': teacher,
    'objective': goal,
    'optimizer': optimizers.build(optimizer),
    'max_new_tokens': T,
    **options,
  }
  return step.Settings(**options)


@functools.cache
def gkd(**args):
  args = {'lam': 0.5, 'beta': 0.9, **args}
  return step.Program(settings(recipes.build('gkd', **args)))


def fresh(program, params=None, seed=0):
  params = models()[1] if params is None else params
  copy = jax.tree.map(jnp.array, params)  # the step takes its state over
  return state.create({'student': copy}, program.settings.optimizer, seed)


def frozen():
  return {'teacher': models()[3]}


def assert_trees(check, left, right):
  jax.tree.map(check, jax.device_get(left), jax.device_get(right))


assert_same = functools.partial(assert_trees, np.testing.assert_array_equal)
assert_close = functools.partial(
  assert_trees, functools.partial(np.testing.assert_allclose, **CLOSE)
)


def log_probs(model, params, prompt, view):
  hidden = model.hidden_states(params, prompt, view.tokens)
  return jax.nn.log_softmax(model.head(params, hidden)[..., :V])


def gkd_formula(params, prompt, view, beta=0.9):
  """L_GKD on given responses, as the paper writes it."""
  student, _, teacher, teacher_params = models()
  log_q = log_probs(student, params, prompt, view)
  log_p = log_probs(teacher, teacher_params, prompt, view)
  p, q = jnp.exp(log_p), jnp.exp(log_q)
  log_m = jnp.log(beta * p + (1 - beta) * q)
  jsd = beta * jnp.sum(p * (log_p - log_m), -1)
  jsd += (1 - beta) * jnp.sum(q * (log_q - log_m), -1)
  lengths = view.mask.sum(-1)
  each = jnp.sum(jsd * view.mask, -1) / jnp.maximum(lengths, 1)
  return jnp.sum(each) / jnp.sum(lengths > 0)
