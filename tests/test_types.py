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
