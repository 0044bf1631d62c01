"""How figures look: one light style, safe for colour-blind readers."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

# Okabe and Ito's colours, without the yellow that is faint on white.
COLOURS = (
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#E69F00',
  '#56B4E9',
  '#000000',
)
MARKERS = 'osD^vPX'
DASHES = ('-', '--', ':')
ACCENT = '#D55E00'
INK = '#333333'
TEACHER = {'color': INK, 'linestyle': (0, (5, 2)), 'linewidth': 1.2}
BEFORE = {'color': '#777777', 'linestyle': (0, (1, 1.5)), 'linewidth': 1.5}

RC = {
  'axes.axisbelow': True,
  'axes.edgecolor': '#999999',
  'axes.grid': True,
  'axes.labelcolor': INK,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlelocation': 'left',
  'axes.titlesize': 10.5,
  'figure.constrained_layout.use': True,
  'figure.dpi': 100,
  'figure.facecolor': 'white',
  'figure.titlesize': 11.5,
  'font.size': 10.5,
  'grid.color': '#E6E6E6',
  'legend.frameon': False,
  'lines.linewidth': 1.8,
  'lines.markersize': 4.5,
  'savefig.dpi': 150,
  'savefig.facecolor': 'white',
  # Words in an SVG can be searched, and it is the same each time.
  'svg.fonttype': 'none',
  'svg.hashsalt': 'kdjax',
  'text.color': INK,
  'xtick.color': INK,
  'ytick.color': INK,
}

UNITS = {
  'step': 'step',
  'seconds': 'seconds of training',
  'sampled_tokens': 'tokens sampled from the student',
}


def figure(
  rows: int = 1,
  columns: int = 1,
  *,
  width: float,
  height: float,
  **options: Any,
) -> tuple[Any, Any]:
  """Returns a figure and its axes [rows, columns]; call it within `style`."""
  from matplotlib import figure as figures

  # No pyplot: nothing global is left behind, no window is opened.
  made = figures.Figure(figsize=(width, height))
  return made, made.subplots(rows, columns, squeeze=False, **options)


def style() -> Any:
  """Returns a context in which figures have the style."""
  import matplotlib

  return matplotlib.rc_context(RC)


def title(made: Any, text: str, detail: str = '') -> None:
  """Writes what is seen over a figure, and under it smaller how."""
  width = made.get_figwidth()
  looks = {'x': 0.01, 'ha': 'left', 'parse_math': False}
  text = textwrap.fill(text, int(10.5 * width))
  made.suptitle(text, fontweight='bold', **looks)
  detail = textwrap.fill(detail, int(14.5 * width))
  made.supxlabel(detail, fontsize=9, color='#666666', **looks)


def thousands(axis: Any) -> None:
  """Writes few ticks below an axis, 50000 as 50k."""
  from matplotlib import ticker

  axis.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
  axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))


def shades(count: int) -> list[Any]:
  """Returns colours from dark to light, for the values of a numeric axis."""
  import matplotlib

  # The end of viridis is a yellow that is faint on white.
  stops = [0.85 * i / max(count - 1, 1) for i in range(count)]
  return [matplotlib.colormaps['viridis'](stop) for stop in stops]


def lines(count: int, *, ordered: bool = False) -> list[dict[str, Any]]:
  """Returns colours, markers and dashes that tell lines apart.

  Args:
    count: of lines.
    ordered: colours go from dark to light, for the values of a numeric axis.
  """
  colours = shades(count) if ordered else COLOURS
  return [
    {
      'color': colours[i % len(colours)],
      'marker': MARKERS[i % len(MARKERS)],
      'linestyle': '-' if ordered else DASHES[i // len(COLOURS) % len(DASHES)],
    }
    for i in range(count)
  ]


def digits(values: Sequence[float], halves: Sequence[float] = ()) -> int:
  """Returns how many decimals tell values apart, in two or three figures.

  Args:
    values: of which the range counts.
    halves: half the widths of their intervals: more decimals than the typical
      one has would be noise.
  """
  return max(0, 2 - round(math.log10(span(values, halves))))


def span(values: Sequence[float], halves: Sequence[float] = ()) -> float:
  """Returns the range of values, or the typical half interval if that is more.

  Colours over it don't make much of what is chance.
  """
  known = [value for value in values if math.isfinite(value)] or [0.0]
  halves = [half for half in halves if math.isfinite(half)] or [0.0]
  widest = max(max(known) - min(known), statistics.median(halves))
  return widest or max(map(abs, known)) or 1.0
