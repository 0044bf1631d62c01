"""What a layer's matrix may be stored as, and how it is multiplied with.

A `Dense` layer's kernel [I, O] is an array in the tree of parameters, or an
`Int8` or a `LoRA` in its place. Both are pytrees whose leaves keep an array's
leading axes, so that layers are stacked, scanned, split and saved all the same;
the first leaf has the kernel's own shape. No copy of the model is made: a
matrix is widened where a layer uses it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import types


@types.struct
class Int8:
  """A matrix in eight bits: W ≈ values * scale, one scale an output.

  Attributes:
    values: [..., I, O] int8, in [-127, 127].
    scale: [..., 1, O] float32.
  """

  values: jax.Array
  scale: jax.Array

  def times(self, x: jax.Array) -> jax.Array:
    """Returns x @ W; the scales multiply the product, which is exact."""
    product = jnp.matmul(
      x, self.values.astype(x.dtype), preferred_element_type=jnp.float32
    )
    return (product * self.scale[0]).astype(x.dtype)

  def dense(self) -> jax.Array:
    """Returns W, float32."""
    return self.values.astype(np.float32) * self.scale


@types.struct
class LoRA:
  """A matrix that stays, and the low-rank change to it that trains.

  W = base + scale * lora_a @ lora_b (Hu et al. 2021,
  https://arxiv.org/abs/2106.09685, eq. 3).

  Attributes:
    base: [..., I, O], or an `Int8`.
    lora_a: [..., I, R].
    lora_b: [..., R, O].
    scale: alpha / R.
  """

  base: Any
  lora_a: jax.Array
  lora_b: jax.Array
  scale: float = types.static_field(default=1.0)

  def times(self, x: jax.Array) -> jax.Array:
    """Returns x @ W, where neither W nor its gradient is ever formed."""
    low = jnp.matmul(x, self.lora_a.astype(x.dtype))
    change = jnp.matmul(low, self.lora_b.astype(x.dtype))
    return times(x, self.base) + self.scale * change

  def dense(self) -> jax.Array:
    """Returns W, float32: bfloat16 would round a small change away."""
    change = self.lora_a.astype(np.float32) @ self.lora_b.astype(np.float32)
    return dense(self.base).astype(np.float32) + self.scale * change


def is_kernel(x: Any) -> bool:
  """Returns whether `x` is a matrix that is stored as something else."""
  return isinstance(x, Int8 | LoRA)


def times(x: jax.Array, kernel: Any) -> jax.Array:
  """Returns x [..., I] @ kernel [I, O], in the dtype of x."""
  if is_kernel(kernel):
    return kernel.times(x)
  return jnp.matmul(x, kernel.astype(x.dtype))


def dense(kernel: Any) -> Any:
  """Returns the array that a kernel stands for; arrays as they are."""
  return kernel.dense() if is_kernel(kernel) else kernel


def merge(params: Any) -> Any:
  """Returns parameters that are all arrays: widened, changes added."""
  return jax.tree.map(dense, params, is_leaf=is_kernel)


def base(params: Any) -> Any:
  """Returns parameters without the changes that train, as they started."""
  return jax.tree.map(
    lambda x: x.base if isinstance(x, LoRA) else x, params, is_leaf=is_kernel
  )


def shapes(params: Any) -> Any:
  """Returns the shapes of the arrays that parameters stand for."""
  return jax.tree.map(
    lambda x: jax.tree.leaves(x)[0].shape, params, is_leaf=is_kernel
  )


def cast(params: Any, dtype: Any) -> Any:
  """Returns parameters whose floats are `dtype`, except eight bits' scales."""

  def convert(x):
    wide = not isinstance(x, Int8) and jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(dtype) if wide else x

  return jax.tree.map(convert, params, is_leaf=lambda x: isinstance(x, Int8))


def size(params: Any) -> tuple[int, int]:
  """Returns how many parameters, scales not counted, and how many bytes.

  Args:
    params: arrays, or their shapes and dtypes.
  """
  values = jax.tree.map(
    lambda x: x.values if isinstance(x, Int8) else x,
    params,
    is_leaf=lambda x: isinstance(x, Int8),
  )
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(values))
  leaves = jax.tree.leaves(params)
  return count, sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
