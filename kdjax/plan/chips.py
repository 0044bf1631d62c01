"""What TPU chips have, and the slices that they come in."""

import dataclasses
import importlib.util
import itertools
import math
import os
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One generation of TPU, a chip.

  Attributes:
    name: as in topologies.
    hbm: bytes of memory that a program may use.
    flops: bfloat16 FLOPs a second, at most.
    hbm_bandwidth: bytes a second.
    ici_bandwidth: bytes a second that it sends to its neighbours, over all of
      its links at once.
    shapes: of the slices that it comes in.
  """

  name: str
  hbm: float
  flops: float
  hbm_bandwidth: float
  ici_bandwidth: float
  shapes: tuple[str, ...]


_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')


def _cubes(*most: int) -> tuple[str, ...]:
  """Slices of less than 4x4x4 chips, and those that 4x4x4 are put together to.

  >>> _cubes(4, 4, 8)
  ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8')
  """
  sizes = [range(4, size + 1, 4) for size in most]
  found = {tuple(sorted(shape)) for shape in itertools.product(*sizes)}
  whole = sorted(found, key=lambda shape: (math.prod(shape), shape))
  small = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')
  return (*small, *('x'.join(map(str, shape)) for shape in whole))


# Peaks, bandwidths and slices are those of cloud.google.com/tpu/docs/v4, /v5e,
# /v5p and /v6e (ICI is given there in bits, or in bytes both ways). Memory is
# what libtpu 0.0.52 lets a program use: the rest of 32, 16, 95.7 and 32 GiB is
# its own.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 30.75 * GIB, 275e12, 1228e9, 300e9, _cubes(12, 16, 16)),
    Chip('v5e', 15.75 * GIB, 197e12, 819e9, 200e9, _FLAT),
    Chip('v5p', 95.73 * GIB, 459e12, 2765e9, 600e9, _cubes(16, 16, 24)),
    Chip('v6e', 31.24 * GIB, 918e12, 1640e9, 400e9, _FLAT),
  )
}


def find(name: str) -> Chip:
  """Returns the chip of a topology such as 'v5e:4x4'.

  Raises:
    ValueError: there is no such topology; says which there are.
  """
  kind, _, shape = name.partition(':')
  chip = CHIPS.get(kind)
  if chip is None:
    examples = ', '.join(f'{c.name}:{c.shapes[3]}' for c in CHIPS.values())
    raise ValueError(
      f'--topology={name}: unknown TPU {kind!r}; known are {sorted(CHIPS)}, '
      f'in slices such as {examples}'
    )
  if shape not in chip.shapes:
    size = math.prod(int(x) for x in shape.split('x') if x.isdecimal())
    near = sorted(chip.shapes, key=lambda s: abs(chips_of(s) - size))[:8]
    near = ', '.join(sorted(near, key=chips_of))
    raise ValueError(
      f'--topology={name}: {kind} has no slice {shape!r}; it has {near}'
      + ' and others' * (len(chip.shapes) > 8)
    )
  return chip


def chips_of(shape: str) -> int:
  """Returns how many chips a slice has.

  >>> chips_of('4x4')
  16
  """
  return math.prod(map(int, shape.split('x')))


def devices(name: str) -> tuple[Chip, list[Any]]:
  """Returns a topology's chip, and the devices to compile for, one a chip.

  Raises:
    ImportError: libtpu isn't installed.
    ValueError: there is no such topology.
  """
  return find(name), _describe(name)


def like(kind: str, count: int) -> list[Any]:
  """Returns devices of a generation, as many as are asked for.

  Its compiler knows slices of any length; programs that are only compiled, to
  be counted, need no other.
  """
  shapes = [s for s in CHIPS[kind].shapes if chips_of(s) == count]
  return _describe(f'{kind}:{(shapes or [f"{count}x1x1"])[0]}')


def _describe(name: str) -> list[Any]:
  _quiet()
  if importlib.util.find_spec('libtpu') is None:
    raise ImportError(
      "--mode=plan compiles with libtpu: pip install 'kdjax[plan]' (on Linux; "
      'no TPU is needed)'
    )
  from jax.experimental import topologies

  kind, _, shape = name.partition(':')
  sides = [int(side) for side in shape.split('x')]
  # A host has 2 x 2 chips, or what there is of them.
  options: dict[str, Any] = {
    'chips_per_host_bounds': (*(min(2, side) for side in sides[:2]), 1)
  }
  if kind == 'v4':
    # Of a chip's two cores a program sees one, as on the machines themselves.
    options['chip_config_name'] = 'megacore'
  found = topologies.get_topology_desc(
    platform='tpu', topology_name=name, **options
  )
  return list(found.devices)


def _quiet() -> None:
  """Tells libtpu, before it is loaded, that there is no TPU to be found."""
  for key, value in {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    # None is held, so that two may compile at a time.
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }.items():
    os.environ.setdefault(key, value)
