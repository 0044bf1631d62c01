"""What the scripts of one phase share: variants in, a table out."""

import argparse
import functools
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import roofline, shapes, tables, timing


def run(
  args: argparse.Namespace,
  phase: str,
  variants: Mapping[str, Callable[[], Any]],
  cost: roofline.Cost,
  tokens: int,
) -> dict[str, Any]:
  """Times variants in alternation and publishes a table; returns its record.

  Args:
    args: from `tables.parser`.
    phase: what is timed; names the files.
    variants: functions that wait for their results; the first is the base.
    cost: of a call.
    tokens: that a call makes or reads.
  """
  takes = {
    name: functools.partial(timing.measure, call, args.calls)
    for name, call in variants.items()
  }
  rounds = timing.alternate(takes, args.rounds, limit=args.limit)
  peaks, rows = roofline.measure(args.dtype), []
  for row in tables.rows(rounds, next(iter(variants))):
    took = rounds.seconds(row['variant']).median
    row['tokens/s'] = tokens / took
    rows.append(row | roofline.columns(cost, took, peaks))
  shape = shapes.from_flags(args)
  record = {
    'machine': tables.machine(),
    'shape': shape,
    'dtype': args.dtype,
    'rounds': rounds,
    'peaks': peaks,
    'rows': rows,
  }
  sizes = (
    f'batch {shape.batch}, {shape.prompt} + {shape.response} tokens, '
    f'V = {shape.vocabulary}'
  )
  title = f'{phase.capitalize()}, {args.shape}, {sizes}, {args.dtype}'
  name = f'{phase}-{args.shape}-{args.dtype}'
  tables.publish(args, name, title, record, roofline.describe(peaks))
  return record


def chosen(variants: Mapping[str, Any], names: str | None) -> dict[str, Any]:
  """Returns the variants that a flag names, all without one.

  Raises:
    ValueError: there is none of that name.
  """
  if not names:
    return dict(variants)
  unknown = sorted(set(names.split(',')) - set(variants))
  if unknown:
    raise ValueError(f'--variants: no {unknown}; known are {list(variants)}')
  return {name: variants[name] for name in names.split(',')}
