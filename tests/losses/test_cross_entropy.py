import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

INF = np.inf


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(2, 2, 3, 7)).astype(np.float32)
  return *logits, rng.integers(0, 7, size=(2, 3))


def test_is_minus_the_labels_log_softmax():
  logits, _, labels = inputs()
  value = losses.cross_entropy(logits, labels)
  log_q = jax.nn.log_softmax(logits)
  expected = [[-log_q[b, t, labels[b, t]] for t in range(3)] for b in range(2)]
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  assert value.dtype == jnp.float32


def test_gradient_is_softmax_minus_one_hot():
  logits, _, labels = inputs()
  grad = jax.grad(lambda x: losses.cross_entropy(x, labels).sum())(logits)
  expected = jax.nn.softmax(logits) - jax.nn.one_hot(labels, 7)
  np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)


def test_jit_and_vmap_agree():
  logits, _, labels = inputs()
  eager = losses.cross_entropy(logits, labels)
  jitted = jax.jit(losses.cross_entropy)(logits, labels)
  np.testing.assert_allclose(jitted, eager, rtol=1e-6)
  mapped = jax.vmap(jax.vmap(losses.cross_entropy))(logits, labels)
  np.testing.assert_allclose(mapped, eager, rtol=1e-6)


def test_impossible_labels_are_infinite_with_a_finite_gradient():
  logits = jnp.array([[0.0, -INF, 1.0]] * 5)
  labels = jnp.array([1, -1, 3, -100, 0])
  value = losses.cross_entropy(logits, labels)
  np.testing.assert_array_equal(np.isinf(value), [1, 1, 1, 1, 0])
  assert (value > 0).all()
  grad = jax.grad(lambda x: losses.cross_entropy(x, labels).sum())(logits)
  assert np.isfinite(grad).all()
  np.testing.assert_array_equal(grad[1:4], 0)


@pytest.mark.parametrize('logits', [[1e4, -1e4], [3e38, -3e38], [-INF, 3e38]])
def test_large_logits(logits):
  value, grad = jax.value_and_grad(losses.cross_entropy)(
    jnp.array(logits), jnp.argmax(jnp.array(logits))
  )
  assert value == 0
  np.testing.assert_array_equal(grad, 0)


def test_bfloat16_logits():
  logits, _, labels = inputs()
  logits = jnp.bfloat16(logits)
  np.testing.assert_array_equal(
    losses.cross_entropy(logits, labels),
    losses.cross_entropy(logits.astype(jnp.float32), labels),
  )


def test_a_nan_row_has_no_gradient():
  logits = jnp.array([[0.0, jnp.nan], [0.0, 1.0]])
  labels = jnp.array([0, 0])
  mask = jnp.array([False, True])
  value, grad = jax.value_and_grad(
    lambda x: losses.masked_mean(losses.cross_entropy(x, labels), mask)
  )(logits)
  np.testing.assert_allclose(value, np.log1p(np.e), rtol=1e-6)
  np.testing.assert_array_equal(grad[0], 0)


def test_labels_are_checked():
  with pytest.raises(TypeError, match='integers, got float32'):
    losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2))
  with pytest.raises(ValueError, match=r'\(2,\).*got \(3,\)'):
    losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros(3, int))


@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_soft_is_forward_kl_plus_the_teachers_entropy(temperature):
  student, teacher, _ = inputs(1)
  log_p = jax.nn.log_softmax(teacher / temperature)
  entropy = -(jnp.exp(log_p) * log_p).sum(-1)

  def soft(x):
    return losses.soft_cross_entropy(x, teacher, temperature=temperature)

  def kl(x):
    return losses.forward_kl(x, teacher, temperature=temperature)

  np.testing.assert_allclose(soft(student), kl(student) + entropy, rtol=1e-5)
  np.testing.assert_allclose(
    jax.grad(lambda x: soft(x).sum())(student),
    jax.grad(lambda x: kl(x).sum())(student),
    atol=1e-6,
  )


@pytest.mark.parametrize('name', ['soft_cross_entropy', 'forward_kl'])
def test_one_hot_teacher_is_a_hard_label(name):
  student, _, labels = inputs(2)
  teacher = jnp.where(jax.nn.one_hot(labels, 7) > 0, 0.0, -INF)
  np.testing.assert_allclose(
    getattr(losses, name)(student, teacher),
    losses.cross_entropy(student, labels),
    rtol=1e-5,
  )


def test_soft_edges():
  student = jnp.array([[0.0, -INF], [0.0, -INF], [3e38, -3e38]])
  teacher = jnp.array([[0.0, 0.0], [0.0, -INF], [3e38, -3e38]])
  value = losses.soft_cross_entropy(student, teacher)
  np.testing.assert_array_equal(value, [INF, 0, 0])
  grad = jax.grad(lambda x: losses.soft_cross_entropy(x, teacher).sum())(
    student
  )
  assert np.isfinite(grad).all()
