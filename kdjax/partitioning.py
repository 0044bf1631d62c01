"""Meshes and shardings. One device is a mesh of one device."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')

Rules = Sequence[tuple[str, Sequence[str | None]]]

# The first pattern found in a parameter's path names the mesh axes that its
# last axes are split over; a leading axis of scanned layers changes nothing.
# Of a pair of matrices the first is split by columns and the second by rows, so
# that one sum ends the pair.
TENSOR_RULES: Rules = (
  (
    r'(^|/)(q|k|v|query|key|value|wi(_[01])?|gate|up|fc1|c_fc)(_proj)?'
    r'/(kernel|bias)$',
    (None, 'tensor'),
  ),
  (r'(^|/)(o|out|wo|down|fc2|c_proj)(_proj)?/kernel$', ('tensor', None)),
  (r'(^|/)(shared|embed(ding|_tokens)?|wte)/embedding$', ('tensor', None)),
  (r'(^|/)lm_head(/kernel)?$', (None, 'tensor')),
)

# Smaller arrays stay whole: gathering them costs more than holding them.
MIN_FSDP_SIZE = 2**14


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Returns the mesh ('data', 'fsdp', 'tensor') over all devices.

  Args:
    data: copies of the model; -1 for as many as there are devices left.
    fsdp: parts that parameters are split into; they see different examples too.
    tensor: parts that every matrix product is split into.
    devices: default all.

  Raises:
    ValueError: the sizes don't multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = {'data': data, 'fsdp': fsdp, 'tensor': tensor}
  named = ', '.join(f'{name}={size}' for name, size in sizes.items())
  free = [name for name, size in sizes.items() if size == -1]
  if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
    raise ValueError(
      f'mesh {named}: sizes must be positive, and at most one may be -1 '
      '(what is left of the devices)'
    )
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(devices) % fixed or (not free and fixed != len(devices)):
    raise ValueError(
      f'mesh {named} does not fit {len(devices)} devices: the sizes must '
      f'multiply to {len(devices)}. Set data=-1 to take what is left, or hide '
      'devices (CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS)'
    )
  for name in free:
    sizes[name] = len(devices) // fixed
  # Linen's modules fail under the default, Explicit axes.
  types = (AxisType.Auto,) * len(AXES)
  return jax.make_mesh(
    tuple(sizes.values()), AXES, axis_types=types, devices=devices
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays [B, ...]: rows over 'data' and 'fsdp'."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def params_sharding(
  mesh: Mesh, params: Any, rules: Rules = TENSOR_RULES
) -> Any:
  """Returns the shardings of a tree of parameters.

  The rules come first; then, where none of them has used 'fsdp', the largest
  axis that is left and divisible is split over it, in arrays of `MIN_FSDP_SIZE`
  elements or more. An axis that its mesh axis doesn't divide stays whole.
  Optimizer states and whole training states may be given as well: their paths
  end like their parameters'.

  Args:
    mesh: from `make_mesh`.
    params: a tree of arrays, or of their shapes.
    rules: pairs (pattern, mesh axes of the last axes).

  Raises:
    ValueError: a rule names an axis that the mesh doesn't have.
  """
  for pattern, names in rules:
    unknown = set(names) - set(mesh.axis_names) - {None}
    if unknown:
      raise ValueError(
        f'the rule {pattern!r} names the mesh axes {sorted(unknown)}; the '
        f'mesh has {list(mesh.axis_names)}'
      )

  def leaf(path, array):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return NamedSharding(mesh, _spec(mesh, name, array.shape, rules))

  return jax.tree_util.tree_map_with_path(leaf, params)


def _spec(mesh, name, shape, rules) -> PartitionSpec:
  matching = (names for pattern, names in rules if re.search(pattern, name))
  names = list(next(matching, ()))[-len(shape) :] if shape else []
  names = [None] * (len(shape) - len(names)) + names
  names = [
    axis if axis and size % mesh.shape[axis] == 0 else None
    for axis, size in zip(names, shape)
  ]
  if 'fsdp' not in names and math.prod(shape) >= MIN_FSDP_SIZE:
    parts = mesh.shape['fsdp']
    fits = [
      i for i, n in enumerate(names) if n is None and shape[i] % parts == 0
    ]
    if fits:
      names[max(fits, key=lambda i: shape[i])] = 'fsdp'
  return PartitionSpec(*names)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
  """Returns a host's rows as global arrays, sharded by `batch_sharding`.

  Args:
    mesh: from `make_mesh`.
    batch: a tree of numpy arrays [rows of this host, ...].

  Raises:
    ValueError: the global batch isn't divisible by data * fsdp, or a leaf is no
      array of numbers.
  """
  sharding = batch_sharding(mesh)
  parts = mesh.shape['data'] * mesh.shape['fsdp']

  def leaf(path, rows):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not np.ndim(rows) or np.asarray(rows).dtype.kind not in 'biufV':
      raise ValueError(
        f'{name} of the batch is {rows!r:.60}, not an array with a row an '
        "example; replace a batch's `references` by None first"
      )
    total = len(rows) * jax.process_count()
    if total % parts:
      raise ValueError(
        f'a batch of {total} ({name}) does not divide over data='
        f'{mesh.shape["data"]} times fsdp={mesh.shape["fsdp"]}; use a '
        f'batch_size that {parts} divides'
      )
    return jax.make_array_from_process_local_data(sharding, np.asarray(rows))

  return jax.tree_util.tree_map_with_path(leaf, batch)
