"""DPKD by pairs of tokens: each prefix's two argmaxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing

INF = np.inf


def logits(seed, shape=(8, 6)):
  rng = np.random.default_rng(seed)
  return (2 * rng.normal(size=(2, *shape))).astype(np.float32)


def test_is_dpkd_of_the_two_argmaxes():
  student, teacher = logits(0)
  log_q, log_p = (np.array(jax.nn.log_softmax(x)) for x in (student, teacher))
  rows, y_c, y_r = np.arange(8), teacher.argmax(-1), student.argmax(-1)
  assert (y_c != y_r).sum() > 3
  pairs = [log[rows, y] for log in (log_q, log_p) for y in (y_c, y_r)]
  value = losses.dpkd_token(student, teacher, beta=0.7)
  assert value.shape == (8,) and value.dtype == jnp.float32
  expected = losses.dpkd(*map(jnp.asarray, pairs), beta=0.7)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Where they differ the student's own choice has the lesser ratio.
  assert (value[y_c != y_r] > np.log(2)).all()


def test_log_2_and_no_gradient_where_the_argmaxes_agree():
  student, teacher = logits(1)
  agree = student.argmax(-1) == teacher.argmax(-1)
  assert agree.any() and not agree.all()
  value = losses.dpkd_token(student, teacher)
  np.testing.assert_allclose(value[agree], np.log(2), rtol=1e-6)
  grad = jax.grad(lambda s: losses.dpkd_token(s, teacher).sum())(student)
  np.testing.assert_array_equal(grad[agree], 0)
  # Elsewhere the two tokens' logits alone move, and against each other.
  for row in np.flatnonzero(~agree):
    y_c, y_r = teacher[row].argmax(), student[row].argmax()
    np.testing.assert_allclose(grad[row, y_c], -grad[row, y_r], rtol=1e-5)
    assert grad[row, y_c] < 0
    rest = np.delete(grad[row], [y_c, y_r])
    np.testing.assert_allclose(rest, 0, atol=1e-7)


def test_finite_differences_and_none_to_the_teacher():
  student, teacher = logits(2)
  testing.assert_gradient(
    lambda s: losses.dpkd_token(s, teacher, beta=1.0).sum(),
    student,
    key=jax.random.key(0),
    step=1e-3,  # no argmax changes within it
  )
  grad = jax.grad(lambda t: losses.dpkd_token(student, t).sum())(teacher)
  np.testing.assert_array_equal(grad, 0)


def test_jit_eager_and_vmap_agree():
  testing.assert_transforms_agree(losses.dpkd_token, *logits(3))


def test_edges_have_no_nan_and_a_nan_token_no_gradient():
  rows = jnp.float32(
    [
      [0, 0, 0],
      [0, -INF, 1],
      [-INF, 0, -INF],
      [-INF, -INF, -INF],
      [3e38, -3e38, 0],
      [np.nan, 0, 0],
    ]
  )
  student, teacher = rows.repeat(6, 0), jnp.tile(rows, (6, 1))
  broken = jnp.isnan(student).any(-1) | jnp.isnan(teacher).any(-1)
  value = losses.dpkd_token(student, teacher)
  np.testing.assert_array_equal(np.isnan(value), broken)
  grad = jax.grad(lambda s: losses.dpkd_token(s, teacher).sum())(student)
  assert np.isfinite(grad).all()
  np.testing.assert_array_equal(grad[broken], 0)
  # q(argmax p) = 0, p(argmax q) = 0.
  for i, j in ((1, 2), (2, 1)):
    assert losses.dpkd_token(rows[i], rows[j]) == INF


def test_bfloat16_is_computed_in_float32():
  student, teacher = jnp.bfloat16(logits(4))
  value = losses.dpkd_token(student, teacher)
  exact = losses.dpkd_token(jnp.float32(student), jnp.float32(teacher))
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, exact, rtol=1e-6)


def test_bad_arguments_are_named():
  student, teacher = logits(5)
  with pytest.raises(ValueError, match='share one vocabulary'):
    losses.dpkd_token(student, teacher[:, 1:])
  with pytest.raises(ValueError, match='beta must be positive, got -1'):
    losses.dpkd_token(student, teacher, beta=-1)
