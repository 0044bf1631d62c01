"""The log-softmax that all losses share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import distributions


def log_softmax(logits, temperature=1.0):
  return distributions.log_softmax(jnp.asarray(logits), temperature)[0]


def test_is_jax_log_softmax_on_ordinary_logits():
  logits = np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)
  weights = np.random.default_rng(1).normal(size=(3, 4, 9))
  np.testing.assert_allclose(
    log_softmax(logits, 1.7), jax.nn.log_softmax(logits / 1.7), rtol=1e-6
  )
  np.testing.assert_allclose(
    jax.grad(lambda x: (weights * log_softmax(x)).sum())(logits),
    jax.grad(lambda x: (weights * jax.nn.log_softmax(x)).sum())(logits),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ('logits', 'expected'),
  [
    ([0.0, -np.inf], [0.0, -np.inf]),
    ([3e38, -3e38], [0.0, distributions.LOWEST]),
    ([-3e38, -3e38], [-np.log(2), -np.log(2)]),
    ([np.inf, 0.0], [0.0, distributions.LOWEST]),
    ([-np.inf, -np.inf], [-np.inf, -np.inf]),
  ],
)
def test_edges(logits, expected):
  np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-6)
  for temperature in (0.5, 1.0, 2.0):
    grads = jax.grad(
      lambda x, t: jnp.maximum(log_softmax(x, t), -1e30).sum(), (0, 1)
    )(jnp.array(logits), temperature)
    assert np.isfinite(grads[0]).all()
    assert np.isfinite(grads[1])


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
