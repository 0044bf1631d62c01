import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import cache

B, K, C, H = 3, 2, 6, 4


def make_state(scan):
  rng = np.random.default_rng(0)
  shape = (2, B, K, C, H) if scan else (B, K, C, H)

  def array():
    return jnp.asarray(rng.standard_normal(shape))

  if scan:
    layers = cache.LayerCache(array(), array())
  else:
    layers = tuple(cache.LayerCache(array(), array()) for _ in range(2))
  mask = jnp.asarray(rng.random((B, 5)) < 0.5)
  return cache.DecodeState(layers, jnp.int32(4), mask, start=2)


def test_write_puts_all_rows_in_the_same_slots():
  buffer, update = jnp.zeros((B, K, C, H)), jnp.ones((B, K, 2, H))
  written = jax.jit(cache.write)(buffer, update, jnp.int32(3))
  expected = np.zeros((B, K, C, H))
  expected[:, :, 3:5] = 1
  np.testing.assert_array_equal(written, expected)


def test_write_puts_each_row_in_its_own_slots():
  buffer, update = jnp.zeros((B, K, C, H)), jnp.ones((B, K, 2, H), jnp.float16)
  written = jax.jit(cache.write)(buffer, update, jnp.array([0, 4, 2]))
  expected = np.zeros((B, K, C, H))
  for row, slot in enumerate((0, 4, 2)):
    expected[row, :, slot : slot + 2] = 1
  np.testing.assert_array_equal(written, expected)
  assert written.dtype == buffer.dtype


def test_query_slots():
  np.testing.assert_array_equal(cache.query_slots(jnp.int32(3), 2), [[3, 4]])
  np.testing.assert_array_equal(
    cache.query_slots(jnp.array([3, 0]), 2), [[3, 4], [0, 1]]
  )


@pytest.mark.parametrize('scan', [False, True])
def test_take_gathers_rows_of_everything(scan):
  state = make_state(scan)
  taken = state.take(jnp.array([2, 2, 0, 1]))
  rows = np.array([2, 2, 0, 1])
  np.testing.assert_array_equal(taken.prompt_mask, state.prompt_mask[rows])
  for a, b in zip(jax.tree.leaves(taken.layers), jax.tree.leaves(state.layers)):
    np.testing.assert_array_equal(a, b[:, rows] if scan else b[rows])
  assert taken.index == 4 and taken.start == 2


@pytest.mark.parametrize('scan', [False, True])
def test_narrow_keeps_room_for_the_first_response_tokens(scan):
  state = make_state(scan)
  narrow = state.narrow(3)
  for a, b in zip(
    jax.tree.leaves(narrow.layers), jax.tree.leaves(state.layers)
  ):
    np.testing.assert_array_equal(a, b[..., :5, :])
  assert narrow.index == 4 and narrow.start == 2


def test_narrow_leaves_the_encoders_keys_alone():
  state = make_state(False)
  cross = jnp.ones((B, K, 9, H))
  layers = tuple(
    dataclasses.replace(layer, cross_keys=cross, cross_values=cross)
    for layer in state.layers
  )
  narrow = dataclasses.replace(state, layers=layers).narrow(1)
  assert narrow.layers[0].keys.shape[2] == 3
  assert narrow.layers[0].cross_keys.shape[2] == 9


def test_rewind_counts_response_tokens():
  state = make_state(False).rewind(jnp.array([0, 2, 1]))
  np.testing.assert_array_equal(state.index, [2, 4, 3])
  taken = state.take(jnp.array([1, 0]))
  np.testing.assert_array_equal(taken.index, [4, 2])


def test_states_pass_through_jit():
  state = make_state(False)
  same = jax.jit(lambda s: s)(state)
  jax.tree.map(np.testing.assert_array_equal, same, state)
  assert same.start == 2
