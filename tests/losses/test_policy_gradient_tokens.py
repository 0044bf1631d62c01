"""Surrogate losses token by token: clips, edges, gradients, transforms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import testing
from kdjax.losses import divergences
from kdjax.losses.policy_gradient import (
  entropy,
  kl_estimate,
  policy_gradient,
  uniform_cross_entropy,
  weighted_reinforce,
)

INF = np.inf
V = 3


def test_kl_estimate_keeps_its_digits():
  d = np.concatenate([10.0 ** np.arange(-18, 1.3, 0.25), [0.0999, 0.1001]])
  d = np.float32(np.concatenate([d, -d]))
  exact = np.longdouble(d)
  value, grad = jax.vmap(jax.value_and_grad(kl_estimate))(-d, jnp.zeros_like(d))
  # The bound stops nothing below 20.
  inside = d < 20
  series = exact**2 * (1 / 2 + exact / 6 + exact**2 / 24)
  reference = np.where(
    np.abs(d) < 1e-3, series, np.expm1(exact) - exact
  ).astype(float)
  np.testing.assert_allclose(value[inside], reference[inside], rtol=3e-6)
  np.testing.assert_allclose(
    grad[inside], -np.expm1(exact[inside]).astype(float), rtol=3e-6
  )
  assert (value >= 0).all()


def test_entropies_are_divergences_to_the_uniform_distribution():
  student, weights = np.random.default_rng(0).normal(size=(2, 4, 5, V))
  student, weights = jnp.float32(student), jnp.float32(weights[..., 0])
  uniform = jnp.zeros_like(student)
  for function, loss in (
    (entropy, lambda x: np.log(V) - divergences.reverse_kl(x, uniform)),
    (
      uniform_cross_entropy,
      lambda x: np.log(V) + divergences.forward_kl(x, uniform),
    ),
  ):
    got, wanted = (
      jax.jit(jax.value_and_grad(lambda x, f=f: (f(x) * weights).sum()))(
        student
      )
      for f in (function, loss)
    )
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], wanted[1], atol=2e-6)


@pytest.mark.parametrize('function', [entropy, uniform_cross_entropy])
def test_entropies_are_finite_without_some_tokens(function):
  dense = np.float32([[0.3, -1.0, 2.0], [0, 0, 0], [1e4, -1e4, 0]])
  wide = np.full((4, 5), -INF, np.float32)  # The last row has nothing at all.
  wide[:3, [0, 2, 4]] = dense
  rows = jax.jit(jax.vmap(jax.value_and_grad(function)))
  (value, grad), (other, other_grad) = rows(wide), rows(dense)
  np.testing.assert_allclose(value, [*other, 0], rtol=1e-6)
  np.testing.assert_allclose(grad[:3, ::2], other_grad, atol=1e-6)
  np.testing.assert_array_equal(grad[:, 1::2], 0)
  np.testing.assert_array_equal(grad[3], 0)
  value, grad = rows(
    np.float32([[3e38, -3e38, 0], [INF, 0, 0], [np.nan, 0, 0]])
  )
  np.testing.assert_array_equal(np.isfinite(value), [True, True, False])
  assert np.isnan(value[2]) and (grad[2] == 0).all()
  assert np.isfinite(grad).all()


def ppo(log_ratio, advantage, clip):
  """Value and slope by log q at one token."""
  return jax.value_and_grad(
    lambda x: policy_gradient(
      x, jnp.float32(advantage), behaviour_logprobs=jnp.float32(0), clip=clip
    )
  )(jnp.float32(log_ratio))


@pytest.mark.parametrize('clip', [0.2, (0.2, 0.28), [0.5, 0.1]])
def test_ppo_stops_where_the_ratio_left_the_right_way(clip):
  low, high = clip if not isinstance(clip, float) else (clip, clip)
  for ratio in (0.3, 1 - low + 0.01, 1.0, 1 + high - 0.01, 3.0):
    for advantage in (2.0, -2.0):
      value, slope = ppo(np.log(ratio), advantage, clip)
      # No reward for going further, up or down; always one for coming back.
      up, down = min(ratio, 1 + high), max(ratio, 1 - low)
      bounded = up if advantage > 0 else down
      np.testing.assert_allclose(value, -bounded * advantage, rtol=1e-5)
      moving = bounded == ratio
      np.testing.assert_allclose(slope, -ratio * advantage * moving, rtol=1e-5)


def test_clips_may_be_traced():
  args = jnp.log(jnp.array([2.0, 0.5])), jnp.array([1.0, -1.0])
  values = jax.jit(
    lambda low, high: policy_gradient(
      *args, behaviour_logprobs=jnp.zeros(2), clip=(low, high)
    )
  )(0.1, 0.3)
  np.testing.assert_allclose(values, [-1.3, 0.9], rtol=1e-6)
  losses = jax.jit(
    lambda clip: weighted_reinforce(
      *args, behaviour_logprobs=jnp.zeros(2), return_clip=clip
    )
  )(0.75)
  np.testing.assert_allclose(losses, [-0.75 * np.log(2), 0.5 * np.log(0.5)])


def test_llmr_clip_shortens_the_gradient_and_keeps_its_sign():
  log_q = jnp.log(jnp.array([0.5, 0.5, 0.1]))
  log_b = jnp.log(jnp.array([0.1, 0.1, 0.5]))
  returns = jnp.array([3.0, -3.0, 3.0])
  grad = jax.grad(
    lambda x: weighted_reinforce(
      x, returns, behaviour_logprobs=log_b, return_clip=2.0
    ).sum()
  )(log_q)
  np.testing.assert_allclose(grad, [-2, 2, -0.6], rtol=1e-5)


CASES = {
  'reinforce': lambda x, y, z: policy_gradient(x, y),
  'weighted': lambda x, y, z: policy_gradient(x, y, behaviour_logprobs=z),
  'ppo': lambda x, y, z: policy_gradient(
    x, y, behaviour_logprobs=z, clip=(0.2, 0.3)
  ),
  'llmr': lambda x, y, z: weighted_reinforce(
    x, y, behaviour_logprobs=z, return_clip=0.5
  ),
  'kl_estimate': lambda x, y, z: kl_estimate(x, z),
}
each = pytest.mark.parametrize('loss', CASES.values(), ids=CASES.keys())


def three(seed, shape=(4, 5)):
  """Log-probabilities, advantages and other log-probabilities."""
  x, y, z = np.random.default_rng(seed).normal(size=(3, *shape))
  return jnp.float32(-np.abs(x)), jnp.float32(y), jnp.float32(-np.abs(z))


@pytest.mark.parametrize('name', [name for name in CASES if name != 'llmr'])
def test_gradient_is_what_finite_differences_say(name):
  x, y, z = three(1)
  if name == 'ppo':  # Off its corners, which a difference would straddle.
    for corner in (0.8, 1.3):
      near = jnp.abs(x - z - np.log(corner)) < 0.1
      x = jnp.where(near, x + 0.25, x)
  testing.assert_gradient(
    lambda x: CASES[name](x, y, z).mean(), x, key=jax.random.key(0)
  )


@pytest.mark.parametrize('function', [entropy, uniform_cross_entropy])
def test_entropy_gradients_are_what_finite_differences_say(function):
  x = jax.random.normal(jax.random.key(1), (3, 7))
  testing.assert_gradient(lambda x: function(x).sum(), x, key=jax.random.key(2))


@each
def test_only_the_students_logprobs_have_a_gradient(loss):
  grads = jax.grad(lambda *args: loss(*args).sum(), (0, 1, 2))(*three(2))
  assert jnp.abs(grads[0]).max() > 0.1
  np.testing.assert_array_equal(grads[1], 0)
  np.testing.assert_array_equal(grads[2], 0)


@each
def test_jit_eager_and_vmap_agree(loss):
  testing.assert_transforms_agree(loss, *three(3))


def test_entropies_agree_under_transforms():
  x = jax.random.normal(jax.random.key(3), (3, 2, 7))
  testing.assert_transforms_agree(
    lambda x: (entropy(x), uniform_cross_entropy(x)), x
  )


@each
def test_bfloat16_is_computed_in_float32(loss):
  args = [x.astype(jnp.bfloat16) for x in three(4)]
  value = loss(*args)
  assert value.dtype == jnp.float32
  exact = loss(*[x.astype(jnp.float32) for x in args])
  np.testing.assert_array_equal(value, exact)
  for function in (entropy, uniform_cross_entropy):
    assert function(args[0]).dtype == jnp.float32
    np.testing.assert_array_equal(
      function(args[0]), function(args[0].astype(jnp.float32))
    )


@each
def test_infinite_inputs_have_finite_values_and_gradients(loss):
  every = [-INF, -1e30, -1.0, 0.0]
  x, z, y = (
    jnp.float32(column)
    for column in zip(*itertools.product(every, every, [-INF, -1.0, 0, 1, INF]))
  )
  value, grad = jax.vmap(jax.value_and_grad(loss))(x, y, z)
  assert np.isfinite(value).all() and np.isfinite(grad).all()


@each
def test_masked_junk_never_matters(loss):
  args = three(5)
  mask = jnp.arange(5)[None] < jnp.array([[5], [2], [1], [0]])

  def total(x, y, z):
    return jnp.where(mask, loss(x, y, z), 0.0).sum()

  value, grad = jax.value_and_grad(total)(*args)
  np.testing.assert_array_equal(grad[~np.array(mask)], 0)
  for junk, i in itertools.product((np.nan, INF, -INF), range(3)):
    broken = list(args)
    broken[i] = jnp.where(mask, args[i], junk)
    got, got_grad = jax.value_and_grad(total)(*broken)
    np.testing.assert_array_equal(got, value)
    np.testing.assert_array_equal(got_grad, grad)


@each
def test_a_nan_token_is_nan_without_gradient(loss):
  x, y, z = three(6)
  x = x.at[1, 2].set(np.nan)
  value = loss(x, y, z)
  grad = jax.grad(lambda x: loss(x, y, z).sum())(x)
  assert np.isnan(value[1, 2]) and np.isnan(value).sum() == 1
  assert grad[1, 2] == 0 and np.isfinite(grad).all()


def test_one_advantage_a_response_is_every_tokens():
  x, y, z = three(7)
  wide = jnp.broadcast_to(y[:, :1], x.shape)
  for loss in (CASES['reinforce'], CASES['ppo'], CASES['llmr']):
    np.testing.assert_array_equal(loss(x, y[:, :1], z), loss(x, wide, z))
  np.testing.assert_array_equal(
    policy_gradient(x, 2.0), policy_gradient(x, jnp.full(x.shape, 2.0))
  )


SQUARE = jnp.zeros((3, 3))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: policy_gradient(SQUARE, SQUARE, clip=0.2),
      'clip=0.2.*behaviour_logprobs is None',
    ),
    (lambda: policy_gradient(SQUARE, SQUARE[0]), r'advantages.*\(3,\).*None'),
    (lambda: policy_gradient(SQUARE[:1], SQUARE), r'advantages.*\(3, 3\)'),
    (
      lambda: policy_gradient(SQUARE, 1.0, behaviour_logprobs=SQUARE[:, :1]),
      r'behaviour_logprobs of shape \(3, 1\)',
    ),
    (
      lambda: policy_gradient(
        SQUARE, 1.0, behaviour_logprobs=SQUARE, clip=(0.2, -1)
      ),
      'clip must be positive, got -1',
    ),
    (
      lambda: weighted_reinforce(
        SQUARE, 1.0, behaviour_logprobs=SQUARE, return_clip=0
      ),
      'return_clip must be positive, got 0',
    ),
    (lambda: kl_estimate(SQUARE, SQUARE[0]), r'reference_logprobs.*\(3,\)'),
  ],
)
def test_bad_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
