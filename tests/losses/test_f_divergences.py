"""The textbook sum is the twin of every other divergence."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import xlogy

from kdjax import losses


def jsd_generator(beta):
  """f of JSD(beta): beta t log t - m log m, m = beta t + 1 - beta."""
  rest = 1 - beta

  def f(t):
    mixed = beta * t + rest
    return beta * xlogy(t, t) - mixed * jnp.log(mixed)

  return losses.Generator(f, -beta * math.log(beta), -rest * math.log(rest))


def skew_forward_generator(alpha):
  return losses.Generator(
    lambda t: xlogy(t, t / (alpha * t + 1 - alpha)), -math.log(alpha), 0.0
  )


def skew_reverse_generator(alpha):
  return losses.Generator(
    lambda t: -jnp.log((1 - alpha) * t + alpha), 0.0, -math.log(alpha)
  )


TWINS = [
  ('forward_kl', {}, 'kl', 1),
  ('reverse_kl', {}, 'rkl', 1),
  ('total_variation', {}, 'tvd', 1),
  ('generalized_jsd', {'beta': 0.5}, 'js', 0.5),
  ('generalized_jsd', {'beta': 0.1}, jsd_generator(0.1), 1),
  ('generalized_jsd', {'beta': 0.9}, jsd_generator(0.9), 1),
  ('skew_forward_kl', {'alpha': 0.1}, skew_forward_generator(0.1), 1),
  ('skew_reverse_kl', {'alpha': 0.1}, skew_reverse_generator(0.1), 1),
]


@pytest.mark.parametrize(('name', 'options', 'f', 'factor'), TWINS)
def test_twins(name, options, f, factor):
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 5, 9)).astype(np.float32)
  student[0, 0] = -np.inf
  teacher[1, 1] = -np.inf
  student[2, 2] = teacher[2, 2] = -np.inf

  def fast(student):
    value = losses.DIVERGENCES[name](
      student, teacher, temperature=1.5, **options
    )
    return jnp.where(jnp.isfinite(value), value, 0).sum(), value

  def slow(student):
    value = losses.f_divergence(student, teacher, f, temperature=1.5)
    return factor * jnp.where(jnp.isfinite(value), value, 0).sum(), value

  grad, value = jax.jit(jax.grad(fast, has_aux=True))(student)
  slow_grad, slow_value = jax.jit(jax.grad(slow, has_aux=True))(student)
  np.testing.assert_allclose(value, factor * slow_value, rtol=1e-5)
  np.testing.assert_allclose(grad, slow_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('name', 'options', 'f', 'factor'), TWINS)
def test_twins_have_one_hessian(name, options, f, factor):
  student, teacher = np.random.default_rng(2).normal(size=(2, 5))

  def fast(student):
    return losses.DIVERGENCES[name](student, teacher, **options)

  def slow(student):
    return factor * losses.f_divergence(student, teacher, f)

  np.testing.assert_allclose(
    jax.jit(jax.hessian(fast))(student),
    jax.jit(jax.hessian(slow))(student),
    rtol=1e-4,
    atol=1e-6,
  )


@pytest.mark.parametrize('name', losses.GENERATORS)
def test_generators_are_what_a_function_alone_would_be(name):
  """f(1) = 0, f is convex, and the stated limits are those of f."""
  generator = losses.GENERATORS[name]
  assert generator.f(jnp.float32(1)) == 0
  t = jnp.linspace(0.05, 4, 50)
  assert (jnp.diff(generator.f(t), 2) > -1e-6).all()
  rows = jnp.array([[0.0, 0.5, -jnp.inf], [-jnp.inf, 0.2, 0.0]])
  for student, teacher in (rows, rows[::-1]):
    np.testing.assert_allclose(
      losses.f_divergence(student, teacher, generator.f),
      losses.f_divergence(student, teacher, name),
      rtol=1e-5,
    )


@pytest.mark.parametrize('name', losses.GENERATORS)
def test_no_nan_at_the_edges(name):
  rows = np.array(
    [
      [0, 0, 0],
      [0, -np.inf, 1],
      [-np.inf, 0, -np.inf],
      [1e4, -1e4, 0],
      [3e38, -3e38, 0],
    ],
    np.float32,
  )
  student, teacher = np.repeat(rows, len(rows), 0), np.tile(rows, (5, 1))

  def summed(student):
    value = losses.f_divergence(student, teacher, name)
    return value.sum(), value

  grad, value = jax.jit(jax.grad(summed, has_aux=True))(student)
  assert not np.isnan(value).any()
  assert np.isfinite(grad).all()


@pytest.mark.parametrize('name', losses.GENERATORS)
@pytest.mark.parametrize('gap', [20, 39, 41, 46, 60, 85])
def test_logits_far_apart(name, gap):
  f = losses.GENERATORS[name].f
  with jax.enable_x64(True):

    def plain(student):
      q = jax.nn.softmax(student)
      return jnp.sum(q * f(0.5 / q))

    student = jnp.array([0, -gap], jnp.float64)
    expected = jax.value_and_grad(plain)(student)
  found = jax.value_and_grad(losses.f_divergence)(
    jnp.float32(student), jnp.zeros(2), name
  )
  for a, b in zip(found, expected):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-6)


def test_jit_and_vmap_agree():
  student, teacher = np.random.default_rng(1).normal(size=(2, 2, 3, 7))
  eager = losses.f_divergence(student, teacher, 'js')
  jitted = jax.jit(losses.f_divergence, static_argnums=2)
  np.testing.assert_allclose(jitted(student, teacher, 'js'), eager, rtol=1e-5)
  mapped = jax.vmap(lambda s, t: losses.f_divergence(s, t, 'js'))
  np.testing.assert_allclose(mapped(student, teacher), eager, rtol=1e-5)


def test_unknown_name_lists_the_known():
  with pytest.raises(ValueError, match="'js', 'kl'.*got 'jsd'"):
    losses.f_divergence(jnp.zeros(3), jnp.zeros(3), 'jsd')
