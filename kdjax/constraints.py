"""Where arrays inside jitted functions lie on the mesh."""

import math
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from kdjax import types


def constrain(tree: Any, *axes: str | tuple[str, ...]) -> Any:
  """Splits the leading axes of arrays over axes of `jax.set_mesh`'s mesh.

  Arrays that these don't divide are left alone, and all are where no mesh, or
  one of other axes than `types.MESH_AXES`, is set.

  Args:
    tree: of arrays.
    axes: for each leading axis of an array, the mesh axis or axes that split
      it. Further ones are whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  auto = all(kind == AxisType.Auto for kind in mesh.axis_types)
  if mesh.axis_names != types.MESH_AXES or mesh.size == 1 or not auto:
    return tree
  named = [(each,) if isinstance(each, str) else each for each in axes]
  parts = [math.prod(mesh.shape[name] for name in each) for each in named]

  def leaf(x):
    if any(size % part for size, part in zip(x.shape, parts)):
      return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))

  return jax.tree.map(leaf, tree)


def by_row(tree: Any) -> Any:
  """Splits arrays [B, ...] as batches are, by their rows."""
  return constrain(tree, types.BATCH_AXES)
