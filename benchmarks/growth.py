"""How a step's time and memory grow with tokens, vocabulary and batch.

  python -m benchmarks.growth --shape=llama --out=runs/benchmarks

measures whole steps (see `benchmarks.step`) at multiples of one size at a time,
each in a process of its own, and writes growth-*.json, .md and .png. Memory is
that of parameters and optimizer, which last, and what XLA sets aside for the
step on top. `exponent` is the slope between a
point and the one before, on logarithmic axes: 1 is proportional.
`--shape=tiny-llama --factors=1,2` takes a minute.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
from typing import Any

from benchmarks import memory, shapes, tables, timing

AXES = ('response', 'vocabulary', 'batch')
FACTORS = '0.5,1,2,4'


def points(
  shape: shapes.Shape, axes: str, factors: str
) -> list[tuple[str, shapes.Shape]]:
  """Returns every axis with the shapes along it."""
  return [
    (axis, scaled(shape, axis, float(factor)))
    for axis in axes.split(',')
    for factor in factors.split(',')
  ]


def scaled(shape: shapes.Shape, axis: str, factor: float) -> shapes.Shape:
  """Returns a shape with one size multiplied."""
  return dataclasses.replace(
    shape, **{axis: max(1, round(getattr(shape, axis) * factor))}
  )


def point(shape: dict[str, Any], dtype: str, rounds: int) -> dict[str, Any]:
  """Measures one point; for a process of its own."""
  import jax

  from benchmarks import programs

  restored = shapes.restore(shape)
  pair = programs.fresh(restored, dtype)
  parts = programs.make(restored, pair, measure_every=10**6)
  parts.update()  # compiles
  held = sum(x.nbytes for x in jax.tree.leaves((parts.state, parts.frozen)))
  planned = memory.temporary(parts.compiled())
  samples = [timing.measure(parts.update) for _ in range(rounds)]
  return {
    'seconds': [each.seconds for each in samples],
    'contention': [each.contention for each in samples],
    'held': held,
    'bytes': held + planned,
  }


def measure(
  points: list[tuple[str, shapes.Shape]], dtype: str, rounds: int, limit: float
) -> list[dict[str, Any]]:
  """Returns a row a point."""
  found: list[dict[str, Any]] = []
  for axis, shape in points:
    got = memory.fresh(
      'benchmarks.growth',
      shape=shapes.plain(shape),
      dtype=dtype,
      rounds=rounds,
    )
    clean = [
      seconds
      for seconds, share in zip(got['seconds'], got['contention'])
      if not share > limit
    ]
    row = {
      'axis': axis,
      'size': getattr(shape, axis),
      'ms': 1e3 * statistics.median(clean) if clean else math.nan,
      'peak MiB': got['bytes'] / memory.MIB,
      'lasting MiB': got['held'] / memory.MIB,
      'n': len(clean),
      'dropped': rounds - len(clean),
    }
    before = found[-1] if found and found[-1]['axis'] == axis else None
    for name in ('ms', 'peak MiB'):
      row[f'exponent of {name}'] = slope(before, row, name)
    found.append(row)
    print(row, flush=True)
  return found


def slope(before: Any, row: Any, name: str) -> float:
  """Returns d log(value) / d log(size) from the row before, or NaN.

  >>> slope({'size': 2, 'ms': 3.0}, {'size': 4, 'ms': 12.0}, 'ms')
  2.0
  """
  if before is None or row['size'] == before['size']:
    return math.nan
  grown = row['size'] / before['size']
  return math.log(row[name] / before[name]) / math.log(grown)


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Draws time and memory over each size, on logarithmic axes."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  axes = list(dict.fromkeys(row['axis'] for row in rows))
  values = ('ms', 'peak MiB')
  figure, panels = plt.subplots(
    2, len(axes), figsize=(4 * len(axes), 6), squeeze=False, sharey='row'
  )
  for value, line in zip(values, panels):
    for axis, panel in zip(axes, line):
      chosen = [row for row in rows if row['axis'] == axis]
      sizes = [row['size'] for row in chosen]
      panel.loglog(sizes, [row[value] for row in chosen], marker='o')
      panel.set_xticks(sizes, [str(size) for size in sizes])
      panel.minorticks_off()
      panel.set_xlabel(axis)
      panel.spines[['top', 'right']].set_visible(False)
    line[0].set_ylabel(value)
  figure.tight_layout()
  figure.savefig(path, dpi=120)
  plt.close(figure)


def main(argv: list[str] | None = None) -> None:
  parser = tables.parser(__doc__, 'llama', rounds=5)
  parser.add_argument('--axes', default=','.join(AXES))
  parser.add_argument('--factors', default=FACTORS)
  parser.add_argument('--point', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.point:
    print(json.dumps(point(**json.loads(args.point))))
    return
  shape = shapes.from_flags(args)
  chosen = points(shape, args.axes, args.factors)
  rows = measure(chosen, args.dtype, args.rounds, args.limit)
  record = {'machine': tables.machine(), 'shape': shape, 'dtype': args.dtype}
  name = f'growth-{args.shape}-{args.dtype}'
  title = f'Growth of a step, {args.shape}, {args.dtype}'
  tables.publish(args, name, title, record | {'rows': rows})
  if args.out:
    plot(rows, pathlib.Path(args.out) / f'{name}.png')


if __name__ == '__main__':
  main()
