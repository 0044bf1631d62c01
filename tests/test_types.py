import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import types


@types.struct
class Pair:
  values: jax.Array
  name: str = types.static_field(default='a')


def test_fields_are_children_and_static_fields_structure():
  pair = Pair(jnp.arange(2))
  leaves, tree = jax.tree.flatten(pair)
  assert len(leaves) == 1
  assert tree != jax.tree.structure(Pair(jnp.arange(2), 'b'))
  doubled = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p))(pair)
  np.testing.assert_array_equal(doubled.values, [0, 2])
  assert doubled.name == 'a'


def test_structs_are_frozen_and_replaceable():
  pair = Pair(jnp.arange(2))
  with pytest.raises(dataclasses.FrozenInstanceError):
    pair.name = 'b'
  assert dataclasses.replace(pair, name='b').name == 'b'


def test_absent_parts_of_a_batch_are_no_leaves():
  prompt = types.Prompt(jnp.zeros((2, 3), int), jnp.ones((2, 3), bool))
  batch = types.Batch(prompt)
  assert len(jax.tree.leaves(batch)) == 2
  assert batch.responses == {}
  assert types.Batch(prompt).responses is not batch.responses


def test_paths_name_the_fields():
  response = types.Response(jnp.zeros((1, 2), int), jnp.ones((1, 2), bool))
  paths = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path({'data': response})
  ]
  assert paths == ["['data'].tokens", "['data'].mask"]


def head(**fields):
  rng = np.random.default_rng(0)
  kernel, bias = rng.normal(size=(3, 5)), rng.normal(size=5)
  return types.Head(jnp.asarray(kernel), jnp.asarray(bias), **fields)


HIDDEN = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 3)))


@pytest.mark.parametrize(
  'fields', [{}, {'scale': 0.3}, {'scale': 2.0, 'softcap': 1.5}]
)
def test_logits_are_the_formula(fields):
  projection = head(**fields)
  kernel, bias = np.float64(projection.kernel), np.float64(projection.bias)
  expected = np.float64(HIDDEN) @ kernel * projection.scale + bias
  if projection.softcap:
    expected = projection.softcap * np.tanh(expected / projection.softcap)
  logits = projection.logits(HIDDEN)
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
  alone = projection.logits(HIDDEN[0, 0])
  # Another kernel, which may round differently.
  np.testing.assert_allclose(alone, logits[0, 0], rtol=1e-6, atol=1e-7)
  tied = dataclasses.replace(projection, tied=True)
  np.testing.assert_array_equal(tied.logits(HIDDEN), logits)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_logits_are_float32_sums_of_products_in_the_hidden_states_type(dtype):
  hidden = HIDDEN.astype(jnp.bfloat16)
  projection = jax.tree.map(lambda x: x.astype(dtype), head())
  logits = projection.logits(hidden)
  assert logits.dtype == jnp.float32
  rounded = projection.kernel.astype(jnp.bfloat16).astype(jnp.float32)
  bias = projection.bias.astype(jnp.float32)
  # Products of 8 bits are exact in float32; rounded sums would be 4e-3 off.
  exact = hidden.astype(jnp.float32) @ rounded + bias
  np.testing.assert_allclose(logits, exact, rtol=1e-6, atol=1e-6)


def test_the_head_of_the_first_tokens():
  projection = head(scale=2.0, softcap=1.5, tied=True)
  first = projection.first(3)
  np.testing.assert_array_equal(
    first.logits(HIDDEN), projection.logits(HIDDEN)[..., :3]
  )
  assert first.tied
  assert projection.first(5) is projection and projection.first(9) is projection
  assert dataclasses.replace(projection, bias=None).first(3).bias is None


def test_heads_are_compiled_once_for_each_form():
  traced = []

  @jax.jit
  def logits(projection):
    traced.append(projection.softcap)
    return projection.logits(HIDDEN)

  for softcap in (None, 1.5, None, 1.5):
    projection = head(softcap=softcap)
    np.testing.assert_allclose(
      logits(projection), projection.logits(HIDDEN), rtol=1e-5
    )
  assert traced == [None, 1.5]
  assert len(jax.tree.leaves(projection)) == 2
