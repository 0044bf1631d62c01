"""Two distributions, compared."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.losses import distributions


def test_ratio_is_exact_where_the_models_nearly_agree():
  """A relative error of 1e-6 of logits that differ in their fourth digit."""
  rng = np.random.default_rng(2)
  student = (8 * rng.normal(size=(5, 100))).astype(np.float32)
  teacher = student + (1e-3 * rng.normal(size=(5, 100))).astype(np.float32)
  pair = distributions.compare(student, teacher)
  spread = teacher.astype(float) - student
  spread -= spread.mean(-1, keepdims=True)
  ratio = np.asarray(pair.log_ratio, float)
  ratio -= ratio.mean(-1, keepdims=True)
  np.testing.assert_allclose(ratio, spread, atol=1e-9)


def test_reduce_has_the_derivatives_it_is_given():
  student, teacher = jnp.array([0.0, 1.0]), jnp.array([0.5, 0.0])
  slopes = jnp.array([[2.0, -1.0], [0.5, 3.0]])

  def given(student, temperature, weight):
    pair = distributions.compare(student, teacher, temperature)
    return distributions.reduce(pair, weight * pair.q, *slopes)

  def written_out(student, temperature, weight):
    del weight
    log_q = jax.nn.log_softmax(student / temperature)
    log_p = jax.nn.log_softmax(teacher / temperature)
    return (slopes[0] * log_q + slopes[1] * log_p).sum()

  args = student, 2.0, 3.0
  value, grads = jax.value_and_grad(given, (0, 1, 2))(*args)
  expected = jax.grad(written_out, (0, 1))(*args)
  np.testing.assert_allclose(value, 3.0, rtol=1e-6)
  np.testing.assert_allclose(grads[0], expected[0], rtol=1e-5)
  np.testing.assert_allclose(grads[1], expected[1], rtol=1e-5)
  np.testing.assert_allclose(grads[2], 1.0, rtol=1e-6)
