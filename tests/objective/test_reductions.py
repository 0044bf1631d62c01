"""Sums and counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objective import count, reduce

VALUES = jnp.array([[1.0, 2.0, 4.0], [8.0, jnp.nan, jnp.inf], [jnp.nan] * 3])
MASK = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize(
  'normalize, total, number',
  [('token', 15.0, 4), ('sequence', 7 / 3 + 8, 2), ('sum', 15.0, 2)],
)
def test_reductions_by_hand(normalize, total, number):
  found = reduce(VALUES, MASK, normalize)
  np.testing.assert_allclose(found, (total, number), rtol=1e-6)
  assert count(MASK, normalize) == number
  grads = jax.grad(lambda v: reduce(v, MASK, normalize)[0])(VALUES)
  assert np.all(np.isfinite(grads))
  assert np.all(np.asarray(grads)[~np.asarray(MASK)] == 0)


@pytest.mark.parametrize('normalize', ['token', 'sequence', 'sum'])
def test_reductions_of_parts_add_up(normalize):
  parts = [
    reduce(VALUES[i], MASK[i], normalize) for i in np.split(np.r_[:3], 3)
  ]
  np.testing.assert_allclose(
    np.sum(parts, 0), reduce(VALUES, MASK, normalize), rtol=1e-6
  )


@pytest.mark.parametrize('normalize', ['token', 'sequence', 'sum'])
def test_pairs_count_once_however_they_are_normalised(normalize):
  values, mask = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True])
  np.testing.assert_allclose(reduce(values, mask, normalize), (4.0, 2))
  assert count(mask, normalize) == 2
