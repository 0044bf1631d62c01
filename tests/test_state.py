"""The state is a pytree that can be donated whole."""

import jax
import jax.numpy as jnp
import optax
import pytest

from kdjax import state as state_lib


def _state(seed=0):
  params = {'student': {'w': jnp.ones(3)}}
  return state_lib.create(params, optax.adam(1e-3), seed)


def test_create():
  state = _state(seed=5)
  assert state.step == 0
  assert (state.step.dtype, state.step.shape) == (jnp.int32, ())
  assert state.skipped == state.consecutive_skipped == 0
  assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
  assert (state.behaviour, state.replay, state.pending_rollout) == (None,) * 3
  draw = jax.random.normal
  assert draw(state.key) == draw(_state(seed=5).key)
  assert draw(state.key) != draw(_state(seed=6).key)


def test_every_leaf_can_be_donated():
  state = _state()
  again = jax.jit(lambda x: x, donate_argnums=0)(state)
  assert jax.tree.structure(again) == jax.tree.structure(state)


def test_params_without_a_student_are_refused():
  with pytest.raises(ValueError, match=r"key 'student', got \['w'\]"):
    state_lib.create({'w': jnp.ones(3)}, optax.sgd(1.0), 0)
