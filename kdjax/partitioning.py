"""Meshes and shardings. One device is a mesh of one device."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.types import BATCH_AXES, MESH_AXES

# What the last axes of parameters are about, by the first pattern found in
# their path; a leading axis of scanned layers changes nothing.
_NAMES: Sequence[tuple[str, tuple[str, ...]]] = (
  (r'/lora_[ab]$', ()),
  (r'(^|/)q/(kernel|bias)(/|$)', ('embed', 'heads')),
  (r'(^|/)[kv]/(kernel|bias)(/|$)', ('embed', 'kv_heads')),
  (r'(^|/)o/kernel(/|$)', ('heads', 'embed')),
  (r'(^|/)wi(_[01])?/(kernel|bias)(/|$)', ('embed', 'mlp')),
  (r'(^|/)wo/kernel(/|$)', ('mlp', 'embed')),
  (r'(^|/)(shared|embed)/embedding(/|$)', ('vocab', 'embed')),
  (r'(^|/)lm_head(/|$)', ('embed', 'vocab')),
)

# Logical names to the mesh axes that split them. Of a pair of matrices the
# first is split by columns and the second by rows, so that one sum ends the
# pair; 'embed' is what all matrices share.
Rules = Mapping[str, str | Sequence[str]]
RULES: Rules = {
  'embed': 'fsdp',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'vocab': 'tensor',
}

# Smaller arrays are whole in each group that shares its rows: gathering them
# costs more than holding them.
MIN_SIZE = 2**14


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
  count = len(devices)
  if count % fixed or (not free and fixed != count):
    raise ValueError(
      f'mesh {named} does not fit {count} devices: the sizes must multiply to '
      f'{count}, so each is one of {_sizes_of(count)}. Set data=-1 to take '
      'what is left, or hide devices (CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS)'
    )
  for name in free:
    sizes[name] = count // fixed
  # Linen's modules fail under the default, Explicit axes.
  kinds = (AxisType.Auto,) * len(MESH_AXES)
  return jax.make_mesh(
    tuple(sizes.values()), MESH_AXES, axis_types=kinds, devices=devices
  )


def _sizes_of(count: int) -> list[int]:
  """Returns the sizes that an axis over `count` devices can have.

  >>> _sizes_of(12)
  [1, 2, 3, 4, 6, 12]
  """
  return [size for size in range(1, count + 1) if count % size == 0]


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays [B, ...]: rows over 'data' and 'fsdp'."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def read_rules(changes: Rules) -> dict[str, tuple[str, ...]]:
  """Returns `RULES` with changes, every value a tuple of axes.

  Raises:
    ValueError: a name that isn't in `RULES`, or an axis of no mesh.
  """
  found = {}
  for name, axes in {**RULES, **changes}.items():
    split = axes.split('+') if isinstance(axes, str) else axes
    split = tuple(split) if isinstance(split, (tuple, list)) else (None,)
    found[name] = split if split != ('',) else ()
    known = name in RULES and all(axis in MESH_AXES for axis in found[name])
    if not known or len(set(found[name])) < len(found[name]):
      raise ValueError(
        f'sharding.{name}={axes!r}: names are {sorted(RULES)}, and axes '
        f'{list(MESH_AXES)}, several of them joined by +'
      )
  return found


def make_rules(
  mesh: Mesh, changes: Rules, config: Any
) -> dict[str, tuple[str, ...]]:
  """Returns `RULES` with changes, as axes of the mesh.

  Args:
    mesh: from `make_mesh`.
    changes: logical names to a mesh axis, to several ('data+fsdp', or a
      sequence), or to none ('').
    config: of a model, for its `heads` and, where they are fewer, `kv_heads`. A
      head is never split in two: what doesn't divide them leaves them whole.

  Raises:
    ValueError: as `read_rules` does.
  """
  found = read_rules(changes)
  for name in ('heads', 'kv_heads'):
    count = getattr(config, name, config.heads)
    if count % _parts(mesh, found[name]):
      found[name] = ()
  return found


def params_sharding(mesh: Mesh, params: Any, rules: Rules = RULES) -> Any:
  """Returns the shardings of a tree of parameters.

  Where the axes of a rule don't divide an array's, it stays whole. What splits
  'embed' then splits the largest axis that is left, in arrays of `MIN_SIZE`
  elements or more. Optimizer states and whole training states may be given as
  well: their paths end like their parameters'.

  Args:
    mesh: from `make_mesh`.
    params: a tree of arrays, or of their shapes.
    rules: from `make_rules`, or changes of `RULES`.

  Raises:
    ValueError: as `read_rules` does.
  """
  chosen = read_rules(rules)

  def leaf(path, array):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return NamedSharding(mesh, _spec(mesh, name, array.shape, chosen))

  return jax.tree_util.tree_map_with_path(leaf, params)


def _spec(mesh, path, shape, rules) -> PartitionSpec:
  matching = (names for pattern, names in _NAMES if re.search(pattern, path))
  names = next(matching, ())[-len(shape) :] if shape else ()
  wanted = [()] * (len(shape) - len(names)) + [rules[name] for name in names]
  small = math.prod(shape) < MIN_SIZE
  spec, used = [()] * len(shape), set()

  def put(i, axes):
    """Splits axis i, if that can be."""
    fits = axes and not used & set(axes) and not shape[i] % _parts(mesh, axes)
    if fits and not (small and set(axes) & set(BATCH_AXES)):
      spec[i] = axes
      used.update(axes)

  for i, axes in enumerate(wanted):
    put(i, axes)
  for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
    if not spec[i]:
      put(i, rules['embed'])
  return PartitionSpec(*(_entry(axes) for axes in spec))


def _entry(axes):
  """Returns axes as specs are mostly written: None, 'a' or ('a', 'b')."""
  return axes if len(axes) > 1 else next(iter(axes), None)


def _parts(mesh: Mesh, axes: Sequence[str]) -> int:
  return math.prod(mesh.shape[axis] for axis in axes)


def place(mesh: Mesh, params: Any, rules: Rules = RULES) -> Any:
  """Puts parameters of the host, the same in every process, on the devices.

  Each process sends what its own devices hold. (`jax.device_put` would first
  send every array to every process, to compare them.)

  Args:
    mesh: from `make_mesh`.
    params: a tree of arrays; of shapes come shapes with shardings.
    rules: see `params_sharding`.
  """

  def leaf(x, sharding):
    if isinstance(x, jax.ShapeDtypeStruct):
      return x.update(sharding=sharding)
    if isinstance(x, jax.Array):
      return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

  return jax.tree.map(leaf, params, params_sharding(mesh, params, rules))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Returns which rows of a batch the devices of this process hold, ascending.

  Other processes may hold some of them, too: where 'tensor' spans processes.

  Raises:
    ValueError: data * fsdp doesn't divide `batch_size`.
  """
  _check_divides(mesh, batch_size, 'rows')
  sharding = batch_sharding(mesh)
  held = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique([np.arange(batch_size)[part] for part in held])


def shard_batch(mesh: Mesh, batch: Any, rows: int | None = None) -> Any:
  """Returns the rows of a batch as global arrays, by `batch_sharding`.

  Args:
    mesh: from `make_mesh`.
    batch: a tree of numpy arrays [B, ...], the same in every process; or, with
      `rows`, of their `local_rows` alone.
    rows: B.

  Raises:
    ValueError: the batch isn't divisible by data * fsdp, or a leaf is no array
      of so many numbers.
  """
  sharding = batch_sharding(mesh)

  def leaf(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not np.ndim(x) or np.asarray(x).dtype.kind not in 'biufV':
      raise ValueError(
        f'{name} of the batch is {x!r:.60}, not an array with one row '
        "per example; replace a batch's `references` by None first"
      )
    total = len(x) if rows is None else rows
    _check_divides(mesh, total, name)
    here = np.arange(total) if rows is None else local_rows(mesh, total)
    if len(x) != len(here):
      raise ValueError(
        f'{name} of the batch has {len(x)} rows, but this process holds '
        f'{len(here)} of {total}: give those of `local_rows`'
      )

    def part(index):
      start, stop, _ = index[0].indices(total)
      return x[slice(*np.searchsorted(here, (start, stop)))]

    shape = (total, *np.shape(x)[1:])
    return jax.make_array_from_callback(shape, sharding, part)

  return jax.tree_util.tree_map_with_path(leaf, batch)


def _check_divides(mesh: Mesh, total: int, name: str) -> None:
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if total % parts:
    raise ValueError(
      f'a batch of {total} ({name}) does not divide over data='
      f'{mesh.shape["data"]} times fsdp={mesh.shape["fsdp"]}; use a '
      f'batch_size that {parts} divides'
    )
