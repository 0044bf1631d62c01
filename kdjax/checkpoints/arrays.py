"""Trees of arrays by their shapes, dtypes and shardings."""

from typing import Any

import jax


def abstract(state: Any) -> Any:
  """Returns the shapes, dtypes and shardings of a tree of arrays."""

  def leaf(x):
    sharding = getattr(x, 'sharding', None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(leaf, state)


def sharded_as_asked(array: Any, asked: jax.ShapeDtypeStruct) -> Any:
  """Fixes typed keys: orbax gives them the sharding of the integers inside."""
  is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
  if not is_key or asked.sharding is None:
    return array
  return jax.device_put(array, asked.sharding)


def differences(saved: Any, asked: Any) -> list[str]:
  """Returns what differs between two trees' paths, shapes and dtypes.

  Args:
    saved: arrays, or orbax's metadata of a checkpoint's.
    asked: of the model that is to take them.
  """
  before, after = _shapes(saved), _shapes(asked)
  return [
    f'{path}: checkpoint {before.get(path, "has none")}, '
    f'model {after.get(path, "has none")}'
    for path in sorted(set(before) | set(after))
    if before.get(path) != after.get(path)
  ]


def _shapes(tree: Any) -> dict[str, str]:
  """Returns 'dtype[shape]' by path, for arrays and orbax's metadata alike."""
  shapes = {}
  leaves = jax.tree_util.tree_leaves_with_path(
    tree, is_leaf=lambda x: hasattr(x, 'shape')
  )
  for path, leaf in leaves:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.eval_shape(jax.random.key_data, leaf)
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    shapes[name] = f'{leaf.dtype}{list(leaf.shape)}'
  return shapes
