"""Bars: how much every setting gained."""

import math
from collections.abc import Mapping
from typing import Any

from kdjax import evaluation
from kdjax.results import style
from kdjax.results.figures import settings as shown
from kdjax.results.sweep import Results

# More would not be read.
MOST = 40


def bars(results: Results, metric: str | None = None) -> Any:
  """Draws every setting's gain as a bar from the undistilled student's level.

  Without an undistilled student bars start at 0. Whiskers are the 95%
  intervals of the means.

  Args:
    results: of a sweep.
    metric: its name, None for the main one.
  """
  metric = results.check(metric)
  best = results.best(metric)
  settings = [x for x in results.settings if x.systems][:MOST]
  known = shown.references(results, metric)
  start = known.get('undistilled student', 0.0)
  found = [each.estimate(metric) for each in settings]
  places = style.digits([x.value for x in found], [x.half for x in found])
  names = [shown.own_label(results, each) for each in settings]
  with style.style():
    made, ((axis,),) = style.figure(
      width=8, height=max(0.36 * len(settings) + 1.7, 2.6)
    )
    for i, (setting, each) in enumerate(zip(settings, found)):
      first = setting is best.setting
      colour = style.ACCENT if first else style.COLOURS[0]
      axis.barh(
        i, each.value - start, left=start, height=0.62, color=colour, alpha=0.85
      )
      if not math.isnan(each.low):
        axis.plot([each.low, each.high], [i, i], color=style.INK, linewidth=1.3)
      ends = [start, each.value, each.low, each.high]
      axis.annotate(
        f'{each.value:.{places}f}',
        (max(x for x in ends if not math.isnan(x)), i),
        xytext=(5, 0),
        textcoords='offset points',
        va='center',
        # Over the teacher's line.
        bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1},
        fontweight='bold' if first else 'normal',
      )
    _vertical(axis, known)
    axis.use_sticky_edges = False
    axis.margins(x=0.1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(False, axis='y')
    axis.set_xlabel(evaluation.heading(metric))
    style.title(
      made,
      f'{metric} is best with {best.setting.label}',
      shown.alike(best)
      + 'bars: gain over the undistilled student; '
      * ('undistilled student' in known)
      + shown.seeds(results, metric),
    )
  return made


def _vertical(axis: Any, known: Mapping[str, float]) -> None:
  looks = {'teacher': style.TEACHER, 'undistilled student': style.BEFORE}
  for name, value in known.items():
    axis.axvline(value, label=name, **looks[name])
  if known:
    axis.legend(
      loc='lower left', bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2
    )
