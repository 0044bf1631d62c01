"""The generalised JSD over all weights: precision, ends, symmetries."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

BETAS = [1e-9, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.8, 0.999, 1 - 1e-6, 1 - 1e-9]
normalized = functools.partial(losses.generalized_jsd, normalized=True)


def logits(seed, scale, vocab=40, tokens=6):
  rng = np.random.default_rng(seed)
  return (scale * rng.normal(size=(tokens, vocab))).astype(np.float32)


def exact(student, teacher, beta):
  """JSD(beta) / (beta (1 - beta)), in extended precision."""

  def log_softmax(x):
    x = np.asarray(x, np.longdouble)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

  beta = np.longdouble(beta)
  log_p, log_q = log_softmax(teacher), log_softmax(student)
  log_pm = -np.log1p((1 - beta) * np.expm1(log_q - log_p))
  log_qm = -np.log1p(beta * np.expm1(log_p - log_q))
  terms = np.exp(log_p) * log_pm / (1 - beta) + np.exp(log_q) * log_qm / beta
  return terms.sum(-1).astype(float)


def test_four_digits_for_every_beta():
  scales, distances = [0.1, 2.0, 10.0, 1e3], [1e-3, 1e-2, 0.3, 3.0, None]
  for scale, distance in itertools.product(scales, distances):
    student, teacher = logits(0, scale), logits(1, distance or scale)
    teacher = student + teacher if distance else teacher
    for beta in BETAS:
      expected = exact(student, teacher, beta)
      plain = losses.generalized_jsd(student, teacher, beta=beta)
      for value in (
        normalized(student, teacher, beta=beta),
        plain / (beta * (1 - beta)),
      ):
        # Below 1e-7 nats the rounding of the float32 logits is the limit.
        np.testing.assert_allclose(
          value, expected, rtol=1e-4, atol=1e-11, err_msg=f'{beta=}'
        )


def test_traced_beta_equals_the_constant():
  student, teacher = logits(2, 2.0), logits(3, 2.0)
  for loss in (normalized, losses.generalized_jsd):
    traced = jax.jit(functools.partial(loss, student, teacher))
    for beta in np.float32([0, *BETAS, 1]):
      constant = loss(student, teacher, beta=float(beta))
      np.testing.assert_allclose(traced(beta=beta), constant, rtol=1e-5)


def test_ends_are_the_two_kls():
  student, teacher = logits(4, 2.0), logits(5, 2.0)
  student[0, 0] = teacher[1, 1] = -np.inf
  for end, kl in ((0, losses.forward_kl), (1, losses.reverse_kl)):
    expected = kl(student, teacher)
    assert np.isinf(expected).sum() == 1
    for loss in (normalized, losses.generalized_jsd):
      for beta in (end, float(end), jnp.float32(end), np.full(6, end)):
        np.testing.assert_array_equal(
          loss(student, teacher, beta=beta), expected
        )


def test_normalized_is_continuous_at_the_ends_and_plain_is_not():
  student, teacher = logits(6, 2.0), logits(7, 2.0)
  for end, kl in ((0, losses.forward_kl), (1, losses.reverse_kl)):
    near, limit = abs(end - 1e-7), kl(student, teacher)
    np.testing.assert_allclose(
      normalized(student, teacher, beta=near), limit, rtol=1e-4
    )
    plain = losses.generalized_jsd(student, teacher, beta=near)
    np.testing.assert_allclose(plain, 1e-7 * limit, rtol=1e-4)


def test_gradients_are_continuous_at_the_ends():
  student, teacher = jnp.asarray(logits(8, 1.0)), logits(9, 1.0)
  grad = jax.jit(jax.grad(lambda s, b: normalized(s, teacher, beta=b).sum()))
  for end, near in ((0.0, 1e-6), (1.0, 1 - 1e-6)):
    # 1e-6 exp(d) is below 1 % for all d here.
    np.testing.assert_allclose(
      grad(student, near), grad(student, end), rtol=1e-2, atol=1e-4
    )


def test_beta_per_token():
  student, teacher = logits(10, 2.0), logits(11, 2.0)
  beta = np.array([0, 1e-6, 0.3, 0.5, 1 - 1e-6, 1], np.float32)
  value = jax.jit(functools.partial(normalized, student, teacher))(beta=beta)
  for i, b in enumerate(beta):
    same = normalized(student, teacher, beta=float(b))
    np.testing.assert_allclose(value[i], same[i], rtol=1e-5)


def test_swapping_the_models_swaps_the_weights():
  student, teacher = logits(12, 2.0), logits(13, 2.0)
  for beta in BETAS:
    np.testing.assert_allclose(
      losses.generalized_jsd(student, teacher, beta=beta),
      losses.generalized_jsd(teacher, student, beta=1 - beta),
      rtol=1e-5,
    )


def test_jensen_shannon_is_at_most_log_two():
  student, teacher = logits(14, 100.0), logits(15, 100.0)
  value = losses.generalized_jsd(student, teacher)
  assert (value <= np.log(2) * (1 + 1e-6)).all()
  disjoint = losses.generalized_jsd(
    jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
  )
  np.testing.assert_allclose(disjoint, np.log(2), rtol=1e-6)


def test_skew_is_a_part_of_the_jsd():
  """JSD(a) = a KL(p || m) + (1 - a) KL(q || m), where both are skew KLs."""
  student, teacher = logits(16, 2.0), logits(17, 2.0)
  for alpha in (0.1, 0.5, 0.7):
    forward = losses.skew_forward_kl(student, teacher, alpha=alpha)
    reverse = losses.skew_reverse_kl(student, teacher, alpha=1 - alpha)
    np.testing.assert_allclose(
      losses.generalized_jsd(student, teacher, beta=alpha),
      alpha * forward + (1 - alpha) * reverse,
      rtol=1e-5,
    )


@pytest.mark.parametrize('name', ['skew_forward_kl', 'skew_reverse_kl'])
def test_skew_is_bounded_and_traced_alpha_equals_the_constant(name):
  loss = losses.DIVERGENCES[name]
  disjoint = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]])
  np.testing.assert_allclose(
    loss(*disjoint, alpha=0.1), -np.log(0.1), rtol=1e-6
  )
  student, teacher = logits(18, 2.0), logits(19, 2.0)
  alphas = np.array([0, 1e-6, 0.1, 0.5, 0.9, 1], np.float32)
  value = jax.jit(functools.partial(loss, student, teacher))(alpha=alphas)
  for i, alpha in enumerate(alphas):
    same = loss(student, teacher, alpha=float(alpha))
    np.testing.assert_allclose(value[i], same[i], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize('distance', [0.1, 2.0])
def test_gradient_by_beta(distance):
  student = logits(20, 2.0)
  teacher = (student + logits(21, distance)).astype(np.float32)
  grad = jax.jit(
    jax.grad(lambda beta: normalized(student, teacher, beta=beta).sum())
  )
  for beta in (1e-3, 0.1, 0.5, 0.9):
    step = beta / 100
    change = exact(student, teacher, beta + step).sum()
    change -= exact(student, teacher, beta - step).sum()
    np.testing.assert_allclose(
      grad(beta), change / (2 * step), rtol=5e-3, atol=1e-6
    )


@pytest.mark.parametrize(
  ('name', 'knob'),
  [
    ('generalized_jsd', 'beta'),
    ('skew_forward_kl', 'alpha'),
    ('skew_reverse_kl', 'alpha'),
  ],
)
def test_no_nan_in_any_gradient_at_any_weight(name, knob):
  rows = np.array(
    [
      [0, 0, 0, 0],
      [0, -np.inf, 1, -np.inf],
      [-np.inf, 0, -np.inf, -np.inf],
      [1e4, -1e4, 0, 0],
      [3e38, -3e38, 0, -np.inf],
      [100, 0, -100, 1],
    ],
    np.float32,
  )
  student, teacher = np.repeat(rows, 6, 0), np.tile(rows, (6, 1))

  @jax.jit
  def grads(student, beta, temperature):
    def summed(*args):
      options = {knob: args[1], 'temperature': args[2]}
      value = losses.DIVERGENCES[name](args[0], teacher, **options)
      # A sum over tokens must not meet inf - inf: one token's value at a time.
      return jnp.where(jnp.isfinite(value), value, 0).sum(), value

    return jax.grad(summed, (0, 1, 2), has_aux=True)(student, beta, temperature)

  tokens = np.ones(36, np.float32)
  for beta in (0, 1e-38, 1e-20, 1e-7, 1e-5, 0.5, 1 - 1e-5, 1 - 1e-7, 1):
    grad, value = grads(student, np.float32(beta) * tokens, tokens)
    assert (value >= 0).all()  # False for NaN.
    assert all(np.isfinite(g).all() for g in grad), beta
