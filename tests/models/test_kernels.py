import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import kernels, storage

KEY = jax.random.key(0)
MATRIX = np.array(jax.random.normal(KEY, (2, 24, 10)), np.float32)
X = jax.random.normal(jax.random.key(1), (3, 5, 24))


def factored(base, scale=0.5, rank=3):
  a, b = (
    jax.random.normal(jax.random.fold_in(KEY, i), s)
    for i, s in enumerate([(2, 24, rank), (2, rank, 10)])
  )
  return kernels.LoRA(base, a, b, scale)


KERNELS = {
  'array': jnp.asarray(MATRIX),
  'int8': storage.quantize(jnp.asarray(MATRIX)),
  'lora': factored(jnp.asarray(MATRIX)),
  'lora on int8': factored(storage.quantize(jnp.asarray(MATRIX))),
}


@pytest.mark.parametrize('name', KERNELS)
def test_products_and_their_gradients_are_those_of_the_array_it_stands_for(
  name,
):
  stored, whole = KERNELS[name], kernels.dense(KERNELS[name])
  assert kernels.shapes({'w': stored}) == {'w': whole.shape}
  for layer in range(2):
    kernel = jax.tree.map(lambda x, i=layer: x[i], stored)
    found, pull = jax.vjp(lambda x, k=kernel: kernels.times(x, k), X)
    expected, pull_whole = jax.vjp(lambda x, i=layer: x @ whole[i], X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
      pull(found)[0], pull_whole(found)[0], rtol=1e-4, atol=1e-3
    )


def test_factors_get_the_gradient_of_the_change_they_make():
  stored = jax.tree.map(lambda x: x[0], KERNELS['lora'])

  def loss(a, b, times):
    kernel = kernels.LoRA(stored.base, a, b, stored.scale)
    return jnp.sum(jnp.sin(times(X, kernel)))

  args = stored.lora_a, stored.lora_b
  found = jax.grad(loss, (0, 1))(*args, kernels.times)
  expected = jax.grad(loss, (0, 1))(*args, lambda x, k: x @ kernels.dense(k))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3),
    found,
    expected,
  )


def test_eight_bits_are_within_half_a_step_of_every_output():
  matrix = MATRIX.copy()
  matrix[0, :, 3] = 0
  matrix[1, :, 4] *= 1e4
  found = storage.quantize(matrix)
  assert found.values.dtype == np.int8 and found.scale.shape == (2, 1, 10)
  assert np.abs(found.values).max() == 127
  error = np.abs(found.dense() - matrix)
  assert (error <= 0.5001 * found.scale).all()
  np.testing.assert_array_equal(found.dense()[0, :, 3], 0)
  # Each output has its own scale: one that is large costs no other.
  calm = storage.quantize(MATRIX)
  np.testing.assert_array_equal(found.values[1, :, 5], calm.values[1, :, 5])


def test_host_and_device_quantize_alike():
  jax.tree.map(
    np.testing.assert_array_equal,
    storage.quantize(MATRIX),
    KERNELS['int8'],
  )


def test_merge_cast_and_size_see_through_what_is_stored():
  params = {'a': KERNELS['lora on int8'], 'b': jnp.ones(4)}
  merged = kernels.merge(params)
  np.testing.assert_array_equal(merged['a'], KERNELS['lora on int8'].dense())
  np.testing.assert_array_equal(merged['b'], params['b'])
  narrow = kernels.cast(params, jnp.bfloat16)
  assert narrow['a'].base is params['a'].base
  assert narrow['a'].lora_a.dtype == narrow['b'].dtype == jnp.bfloat16
  assert kernels.base(params)['a'] is params['a'].base
  factors = 2 * 3 * (24 + 10)
  count, room = kernels.size(params)
  assert count == MATRIX.size + factors + 4
  assert room == MATRIX.size + 4 * (2 * 10 + factors + 4)
  assert kernels.size(jax.eval_shape(lambda: params)) == (count, room)
