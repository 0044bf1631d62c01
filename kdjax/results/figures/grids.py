"""Heat maps: a metric over two axes."""

import math
from typing import Any

import numpy as np

from kdjax import evaluation
from kdjax.results import style
from kdjax.results.figures import settings as shown
from kdjax.results.intervals import Estimate
from kdjax.results.sweep import Results, Setting


def heat_map(
  results: Results,
  metric: str | None = None,
  x: str | None = None,
  y: str | None = None,
) -> Any:
  """Draws a metric over two axes: mean ± half the interval, the best outlined.

  Darker is better, also where less is better. Each combination of the other
  axes' values has a panel. Settings that lack one of the two are left out.

  Args:
    results: of a sweep.
    metric: its name, None for the main one.
    x: the axis from left to right, None for the first that has several values.
    y: the axis upwards, None for the second.

  Raises:
    ValueError: an axis is unknown, or there aren't two.
  """
  metric = results.check(metric)
  x, y = _two_axes(results, x, y)
  results = results.part([r for r in results.runs if {x, y} <= set(r.values)])
  panels = shown.panels(results, [k for k in results.axes if k not in (x, y)])
  best = results.best(metric)
  found = [each.estimate(metric) for each in results.settings]
  spread = [each.value for each in found], [each.half for each in found]
  places = style.digits(*spread)
  columns, rows = list(results.axes[x]), list(results.axes[y])
  with style.style():
    made, axes = style.figure(
      1,
      len(panels),
      width=max(1.2 * len(columns) * len(panels) + 1.8, 5.5),
      height=0.75 * len(rows) + 2.1,
      sharey=True,
    )
    colours = _colours(metric, *spread)
    for axis, (name, settings) in zip(axes[0], panels.items()):
      axis.set_title(name)
      axis.set_xlabel(x)
      axis.set_xticks(range(len(columns)), [str(each) for each in columns])
      axis.set_yticks(range(len(rows)), [str(each) for each in rows])
      grid = np.full((len(rows), len(columns)), np.nan)
      for each in settings:
        i, j = rows.index(each.values[y]), columns.index(each.values[x])
        own = each.estimate(metric)
        grid[i, j] = own.value
        text = _short(own, places) if own.seeds else _state(each)
        _write(axis, j, i, text, colours.to_rgba(own.value))
        if each is best.setting:
          _outline(axis, j, i)
      _paint(axis, grid, colours)
    axes[0, 0].set_ylabel(y)
    made.colorbar(colours, ax=list(axes[0]), label=evaluation.heading(metric))
    style.title(
      made,
      f'{metric} is best at {best.setting.label}',
      shown.alike(best)
      + _levels(results, metric, places)
      + shown.seeds(results, metric),
    )
  return made


def _two_axes(results, x, y) -> tuple[str, str]:
  for name in (x, y):
    if name is not None and name not in results.axes:
      raise ValueError(
        f'{results.path} has no axis {name!r}; there are {list(results.axes)}.'
      )
  free = [name for name in shown.varied(results) if name not in (x, y)]
  free.sort(key=lambda name: not shown.numeric(results, name))
  try:
    x = x or free.pop(0)
    return x, y or free.pop(0)
  except IndexError:
    raise ValueError(
      f'A heat map needs two axes of several values; {results.path} has '
      f'{shown.varied(results)}. Draw bars instead.'
    ) from None


def _colours(metric: str, values: Any, halves: Any) -> Any:
  """Maps values to blues, the darker the better."""
  from matplotlib import cm, colors

  spread = style.span(values, halves)
  middle = (np.nanmin(values) + np.nanmax(values)) / 2
  less = evaluation.lower_is_better(metric)
  # A margin at both ends, so that words stay readable on every cell.
  up, down = (0.6, 0.75) if less else (0.75, 0.6)
  norm = colors.Normalize(middle - down * spread, middle + up * spread)
  return cm.ScalarMappable(norm, 'Blues_r' if less else 'Blues')


def _paint(axis: Any, grid: np.ndarray, colours: Any) -> None:
  axis.imshow(
    grid, cmap=colours.cmap, norm=colours.norm, origin='lower', aspect='auto'
  )
  axis.grid(False)
  axis.spines[:].set_visible(False)
  axis.tick_params(length=0)


def _write(axis: Any, j: int, i: int, text: str, colour: Any) -> None:
  red, green, blue, _ = colour
  dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.55
  ink = 'white' if dark and text[0].isdigit() else style.INK
  axis.text(j, i, text, ha='center', va='center', color=ink)


def _outline(axis: Any, j: int, i: int) -> None:
  from matplotlib import patches

  box = patches.Rectangle(
    (j - 0.48, i - 0.47),
    0.96,
    0.94,
    fill=False,
    edgecolor=style.ACCENT,
    linewidth=3,
  )
  axis.add_patch(box)


def _state(setting: Setting) -> str:
  states = {run.state for run in setting.runs}
  return 'failed' if 'failed' in states else 'pending'


def _short(found: Estimate, places: int) -> str:
  """'61.2\n±1.3', half the interval's width under the mean."""
  text = f'{found.value:.{places}f}'
  if math.isnan(found.half):
    return text
  return f'{text}\n±{found.half:.{places}f}'


def _levels(results: Results, metric: str, places: int) -> str:
  found = shown.references(results, metric)
  return ''.join(f'{name} {x:.{places}f}, ' for name, x in found.items())
