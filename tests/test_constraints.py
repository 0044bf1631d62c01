"""What is told to the compiler about a mesh, and what isn't."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from kdjax import constraints, types


def said(x, *axes, names=types.MESH_AXES, sizes=(2, 1, 2), kind=AxisType.Auto):
  """Returns the program under a mesh of these axes."""
  mesh = AbstractMesh(sizes, names, axis_types=(kind,) * len(names))
  with jax.sharding.use_abstract_mesh(mesh):
    return str(jax.make_jaxpr(lambda x: constraints.constrain(x, *axes))(x))


def test_values_stay_what_they_are_without_a_mesh():
  x = jnp.arange(4)
  np.testing.assert_array_equal(jax.jit(constraints.by_row)(x), x)
  assert 'sharding' not in str(jax.make_jaxpr(constraints.by_row)(x))


def test_leading_axes_are_split():
  found = said(jnp.zeros((4, 6)), types.BATCH_AXES, 'tensor')
  assert "P(('data', 'fsdp'), 'tensor')" in found


def test_by_row_splits_as_batches_are():
  mesh = AbstractMesh(
    (2, 1, 1), types.MESH_AXES, axis_types=(AxisType.Auto,) * 3
  )
  with jax.sharding.use_abstract_mesh(mesh):
    found = str(jax.make_jaxpr(constraints.by_row)(jnp.zeros((2, 3))))
  assert "P(('data', 'fsdp'),)" in found


@pytest.mark.parametrize(
  'shape, options',
  [
    ((3, 6), {}),
    ((4, 5), {}),
    ((4, 6), {'sizes': (1, 1, 1)}),
    (
      (4, 6),
      {'names': ('data', 'fsdp', 'tensor', 'expert'), 'sizes': (2,) * 4},
    ),
    ((4, 6), {'kind': AxisType.Explicit}),
  ],
)
def test_what_cannot_be_split_is_left_alone(shape, options):
  found = said(jnp.zeros(shape), types.BATCH_AXES, 'tensor', **options)
  assert 'sharding_constraint' not in found
