"""Curves of a setting: the mean over its seeds, thinned for a small page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.page.numbers import finite, rounded

# What is drawn of the training lines, by the beginnings of their names.
_TRAINING = ('loss', 'forward_kl', 'reverse_kl', 'gradient_norm', 'rollout/')

_X = {
  'steps': 'step',
  'seconds': 'total/seconds',
  'sampled tokens': 'total/sampled_tokens',
}

_ENDS = ('_low', '_high')

Line = Mapping[str, Any]


def of_setting(
  seeds: Sequence[Sequence[Line]],
  points: int,
  *,
  interval: bool = True,
) -> list[dict[str, Any]]:
  """Returns the validation's and the training's curves.

  Args:
    seeds: the lines of metrics.jsonl of each run of the setting.
    points: the most points that a curve keeps; of more, neighbours are
      averaged.
    interval: whether a single seed's band is its bootstrap interval.

  Returns:
    A dict a kind of line: 'x' maps 'steps', 'seconds' and 'sampled tokens' to
    the mean over seeds at each step that all of them reached, 'y' a metric to
    'value' and, if there is one, 'low' and 'high' of a band: the extremes of
    several seeds, or what `interval` says.
  """
  kinds: tuple[Callable[[str], bool], ...] = (
    lambda name: name.startswith('eval/') and not name.endswith(_ENDS),
    lambda name: name.startswith(_TRAINING) and not name.endswith('_first'),
  )
  found = []
  for wanted in kinds:
    grids = [_by_step(lines, wanted) for lines in seeds]
    grids = [grid for grid in grids if grid]
    if grids:
      found.append(_mean(grids, wanted, points, interval))
  return found


def teacher(lines: Sequence[Line]) -> dict[str, float]:
  """Returns the last 'teacher/<metric>' of each metric."""
  found = {}
  for line in lines:
    found |= {
      name.removeprefix('teacher/'): value
      for name, value in line.items()
      if name.startswith('teacher/')
    }
  return {name: finite(value) for name, value in found.items()}


def _by_step(lines, wanted):
  return {line['step']: line for line in lines if any(map(wanted, line))}


def _mean(grids, wanted, points, interval):
  steps = sorted(set.intersection(*map(set, grids)))
  names = sorted(
    {
      name
      for grid in grids
      for line in grid.values()
      for name in line
      if wanted(name)
    }
  )

  def column(name):  # [seeds, steps]
    return np.array(
      [[grid[step].get(name, np.nan) for step in steps] for grid in grids],
      np.float64,
    ).reshape(len(grids), len(steps))

  def thin(values):
    return [rounded(value) for value in _thinned(values, points)]

  x = {label: column(name) for label, name in _X.items()}
  y = {}
  for name in names:
    values = column(name)
    y[name] = {'value': thin(values.mean(0))}
    band = None
    if len(grids) > 1:
      band = values.min(0), values.max(0)
    elif interval:
      band = [column(name + end)[0] for end in _ENDS]
    if name.startswith('eval/') and band and np.isfinite(band[0]).any():
      y[name] |= {'low': thin(band[0]), 'high': thin(band[1])}
  return {
    'x': {
      label: thin(values.mean(0))
      for label, values in x.items()
      if np.isfinite(values).all()
    },
    'y': y,
  }


def _thinned(values: np.ndarray, points: int) -> list[float]:
  """Averages neighbours, so that at most `points` values are left."""
  if not len(values):
    return []
  parts = np.array_split(values, min(points, len(values)))
  return [part.mean() for part in parts]
