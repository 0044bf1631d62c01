"""What parameters are stored in: float32, bfloat16, or eight bits."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import kernels

WEIGHTS = ('float32', 'bfloat16', 'int8')

# What narrows. Scales and biases of norms and layers, and T5's relative
# positions, stay float32: 0.1% of the bytes, and an error in one of them is in
# every token. Tables and heads are looked up and read in chunks, as arrays, so
# that 'int8' leaves them in bfloat16.
_TABLES = r'(^|/)(lm_head|(shared|embed|positions)/embedding)$'
_MATRICES = r'(^|/)kernel$'


def check_weights(weights: str) -> None:
  """Raises ValueError where `weights` is nothing to store parameters in."""
  if weights not in WEIGHTS:
    raise ValueError(f'weights={weights!r}: expected one of {WEIGHTS}')


def store(path: str, array: Any, weights: str) -> Any:
  """Returns a parameter as it is stored.

  Args:
    path: such as 'decoder/layers_0/mlp/wo/kernel'.
    array: of NumPy (the result is, too) or of JAX.
    weights: 'float32', 'bfloat16' or 'int8'.
  """
  matrix = re.search(_MATRICES, path)
  if weights == 'int8' and matrix:
    return quantize(array)
  narrow = weights != 'float32' and (matrix or re.search(_TABLES, path))
  return _as(array, jnp.bfloat16 if narrow else jnp.float32)


def store_all(params: Any, weights: str) -> Any:
  """Returns a tree of parameters as it is stored; kernels stay as they are."""
  check_weights(weights)

  def leaf(path, array):
    if kernels.is_kernel(array):
      return array
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return store(name, array, weights)

  return jax.tree_util.tree_map_with_path(
    leaf, params, is_leaf=kernels.is_kernel
  )


def quantize(matrix: Any) -> kernels.Int8:
  """Returns a matrix [..., I, O] in eight bits, symmetric, a scale an output.

  scale_o = max_i |W_io| / 127,  values_io = round(W_io / scale_o)

  >>> found = quantize(np.array([[0.5, 3.0], [-1.0, 0.0]]))
  >>> found.values.tolist(), (127 * found.scale).tolist()
  ([[64, 127], [-127, 0]], [[1.0, 3.0]])
  """
  xp = jnp if isinstance(matrix, jax.Array) else np
  matrix = _as(matrix, jnp.float32)
  scale = xp.max(xp.abs(matrix), -2, keepdims=True) / 127
  # An output that is always zero has any scale.
  values = xp.round(matrix / xp.where(scale == 0, 1, scale))
  return kernels.Int8(values.astype(np.int8), scale)


def _as(array: Any, dtype: Any) -> Any:
  """Returns an array in `dtype`; NumPy's own, uncopied, where it is already."""
  if isinstance(array, jax.Array):
    return array.astype(dtype)
  return np.asarray(array, dtype)
