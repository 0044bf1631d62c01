import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import rows, types


def response(tokens, mask):
  return types.Response(jnp.array(tokens), jnp.array(mask, bool))


def test_scatter_leaves_the_other_rows_empty():
  found = rows.scatter(
    response([[1, 2], [3, 0]], [[1, 1], [1, 0]]), jnp.array([2, 0]), 3
  )
  np.testing.assert_array_equal(found.tokens, [[3, 0], [0, 0], [1, 2]])
  np.testing.assert_array_equal(found.mask, [[1, 0], [0, 0], [1, 1]])


def test_select_takes_rows_and_fills_up_the_shorter():
  responses = {
    'student': response([[1, 2], [3, 4], [5, 6]], [[1, 1], [1, 0], [1, 1]]),
    'data': response([[7], [8], [9]], [[1], [1], [0]]),
  }
  names = ['student', 'teacher', 'data']
  found = rows.select(names, responses, jnp.array([2, 0, 2]))
  np.testing.assert_array_equal(found.tokens, [[7, 0], [3, 4], [9, 0]])
  np.testing.assert_array_equal(found.mask, [[1, 0], [1, 0], [0, 0]])


@pytest.mark.parametrize('parts', [1, 2, 3, 6])
def test_split_deals_every_row_once(parts):
  x = jnp.arange(12).reshape(6, 2)
  micros = rows.split({'x': x, 'nothing': None}, parts)['x']
  assert micros.shape == (parts, 6 // parts, 2)
  assert sorted(micros.reshape(6, 2)[:, 0]) == list(range(0, 12, 2))
  # Micro-batch m is every M-th row from m on.
  np.testing.assert_array_equal(micros[0], x[::parts])
  np.testing.assert_array_equal(rows.join(micros), x)
