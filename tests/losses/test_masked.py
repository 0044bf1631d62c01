import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

MASK = np.array([[True, True, False], [True, False, False]])
VALUES = np.array([[1.0, 2.0, 10.0], [6.0, 20.0, 30.0]], np.float32)


def test_sum_and_mean():
  assert losses.masked_sum(VALUES, MASK) == 9
  assert losses.masked_mean(VALUES, MASK) == 3
  assert losses.masked_mean(VALUES, MASK[:, :1]) == VALUES.mean()


@pytest.mark.parametrize('junk', [np.nan, np.inf, -np.inf, 3e38])
def test_masked_values_never_matter(junk):
  values = np.where(MASK, VALUES, junk)
  for reduce in (losses.masked_sum, losses.masked_mean):
    expected = jax.value_and_grad(reduce)(VALUES, MASK)
    result = jax.jit(jax.value_and_grad(reduce))(values, MASK)
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])
    np.testing.assert_array_equal(result[1][~MASK], 0)


@pytest.mark.parametrize('name', losses.DIVERGENCES)
def test_masked_logits_never_matter(name):
  """Whatever stands at padded positions, in value and gradient."""

  @jax.jit
  @jax.value_and_grad
  def run(student, teacher):
    value = losses.DIVERGENCES[name](student, teacher)
    return losses.masked_mean(value, MASK)

  student, teacher = np.random.default_rng(0).normal(size=(2, 2, 3, 5))
  expected = run(student, teacher)
  for junk in (np.nan, np.inf, -np.inf):
    for which in ((1, 0), (0, 1), (1, 1)):
      broken = [
        np.where(MASK[..., None] | (not breaks), clean, junk)
        for clean, breaks in zip((student, teacher), which)
      ]
      value, grad = run(*broken)
      np.testing.assert_allclose(value, expected[0], rtol=1e-6)
      np.testing.assert_allclose(grad, expected[1], rtol=1e-6)


def test_kept_values_do_matter():
  values = np.where(MASK, np.nan, VALUES)
  assert np.isnan(losses.masked_sum(values, MASK))
  assert np.isnan(losses.masked_mean(values, MASK))


def test_empty_mask_is_zero():
  value, grad = jax.value_and_grad(losses.masked_mean)(
    VALUES * np.nan, np.zeros_like(MASK)
  )
  assert value == 0
  np.testing.assert_array_equal(grad, 0)


def test_weights():
  weights = np.array([[0.5, 0.25, 0.0], [0.25, 0.0, 0.0]], np.float32)
  assert losses.masked_sum(VALUES, weights) == 2.5
  assert losses.masked_mean(VALUES, 3 * weights) == 2.5


def test_bfloat16_adds_up_in_float32():
  values = jnp.ones(1000, jnp.bfloat16)
  assert losses.masked_sum(values, jnp.ones(1000, bool)) == 1000
  assert losses.masked_mean(values, values).dtype == jnp.float32


def test_vmap_reduces_each_row():
  rows = jax.vmap(losses.masked_mean)(VALUES, MASK)
  np.testing.assert_array_equal(rows, [1.5, 6.0])


def test_shapes_are_checked():
  with pytest.raises(ValueError, match=r'\(2,\) does not broadcast.*\(2, 3\)'):
    losses.masked_sum(VALUES, np.ones(2))
