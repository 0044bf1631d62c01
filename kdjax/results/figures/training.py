"""Curves: a metric while the student trains."""

import math
from typing import Any

from kdjax import evaluation
from kdjax.evaluation.bootstrap import percentiles
from kdjax.results import style
from kdjax.results.figures import settings as shown
from kdjax.results.intervals import draws
from kdjax.results.sweep import Results, Setting


def curves(results: Results, metric: str | None = None, x: str = 'step') -> Any:
  """Draws a metric against what training took: mean and band over seeds.

  The values of one axis have a colour each; each combination of the others'
  has a panel. Bands are the bootstrap's 95% intervals over seeds; two seeds are
  drawn as thin lines; the band of a lone seed, over examples, only in a panel
  of its own: other settings have the same examples. Settings that have no x, as
  of sampled tokens those that sample none, are drawn as their last point.

  Args:
    results: of a sweep.
    metric: of the validation examples, None for the main one; or a name in
      metrics.jsonl, such as 'loss'.
    x: 'step', 'seconds' of training without evaluations, or 'sampled_tokens'.

  Raises:
    ValueError: no run has the metric, or x is none of these.
  """
  if x not in style.UNITS:
    raise ValueError(f'x is {x!r}; expected one of {", ".join(style.UNITS)}.')
  metric = metric or results.check(metric)
  frame = results.curves(metric)
  axis_name = _coloured(results)
  others = [name for name in results.axes if name != axis_name]
  panels = shown.panels(results, others)
  columns = min(len(panels), 3)
  rows = math.ceil(len(panels) / columns)
  with style.style():
    made, axes = style.figure(
      rows,
      columns,
      width=max(3.6 * columns + 1.6, 7.5),
      height=2.9 * rows + 1.2,
      sharex=True,
      sharey=True,
    )
    for axis in axes.flat[len(panels) :]:
      axis.set_visible(False)
    for axis, (name, settings) in zip(axes.flat, panels.items()):
      _panel(axis, results, axis_name, settings, frame, x)
      _levels(axis, results, metric, frame)
      axis.set_title(name)
    for axis in axes[-1]:
      axis.set_xlabel(style.UNITS[x])
      style.thousands(axis)
    for axis in axes[:, 0]:
      axis.set_ylabel(metric)
    _legend(made, axes.flat, axis_name)
    style.title(
      made,
      f'{evaluation.heading(metric)} against {_WORDS[x]}',
      _detail(results, metric, panels, frame),
    )
  return made


# Of two seeds a band would vanish wherever they happen to agree.
FEW = 3

# More bands over each other can't be told apart.
MOST_BANDS = 6

_WORDS = {
  'step': 'steps',
  'seconds': 'time',
  'sampled_tokens': 'tokens sampled',
}


def _coloured(results: Results) -> str | None:
  """The axis whose values are told by colour: one with few, names first."""
  free = shown.varied(results)
  few = [name for name in free if len(results.axes[name]) <= 8] or free
  few.sort(key=lambda name: shown.numeric(results, name))
  return few[0] if few else None


def _looks(results: Results, name: str | None) -> dict[Any, Any]:
  """Of lines by the axis' values; None stands for settings that lack it."""
  values = results.axes[name] if name else []
  ordered = name is not None and shown.numeric(results, name)
  looks = dict(zip(values, style.lines(len(values), ordered=ordered)))
  return looks | {None: style.lines(1)[0]}


def _panel(axis, results, name, settings, frame, x) -> None:
  looks = _looks(results, name)
  for setting in settings:
    points = band(frame, setting, x)
    if not points:
      continue
    xs, means, lows, highs = zip(*points)
    value = setting.values.get(name)
    look = dict(looks[value])
    text = 'student' if value is None else str(value)
    if len(points) > 1 and xs[-1] == xs[0]:
      look['linestyle'] = ''
      axis.plot(xs[-1:], means[-1:], label=text, **look)
      continue
    seeds, colour = len(_going(frame, setting)), look['color']
    if 1 < seeds < FEW:
      _thin(axis, frame, setting, x, colour)
    elif len(settings) == 1 or (seeds > 1 and len(settings) <= MOST_BANDS):
      axis.fill_between(xs, lows, highs, color=colour, alpha=0.15, lw=0)
    axis.plot(xs, means, label=text, **look)


def _thin(axis, frame, setting, x, colour) -> None:
  for name in _going(frame, setting):
    own = frame[frame['run'] == name].dropna(subset=['value', x])
    axis.plot(own[x], own['value'], color=colour, linewidth=0.7, alpha=0.6)


def band(
  frame: Any, setting: Setting, x: str
) -> list[tuple[float, float, float, float]]:
  """Returns (x, mean, low, high) at the steps that all of its runs have.

  Args:
    frame: of `Results.curves`.
    setting: whose runs.
    x: the column, of which the mean over seeds is taken.
  """
  own = frame[frame['run'].isin(_going(frame, setting))]
  own = own.dropna(subset=['value', x])
  count = own['run'].nunique()
  found = []
  for _, rows in own.groupby('step'):
    if len(rows) < count:
      continue
    values = rows['value'].to_numpy(float)
    if count > 1:
      low, high = percentiles(draws(values, values.mean()))
    else:
      low, high = rows['low'].iloc[0], rows['high'].iloc[0]
    found.append((float(rows[x].mean()), float(values.mean()), low, high))
  return found


def _going(frame: Any, setting: Setting) -> list[str]:
  """The names of the runs that have points and haven't failed."""
  known = set(frame['run'])
  runs = [run for run in setting.runs if run.state != 'failed']
  return [run.name for run in runs if run.name in known]


def _levels(axis, results, metric, frame) -> None:
  """Where the students began, and the teacher if it was scored on this too.

  A sweep's teacher was scored on the test examples, whose level is another.
  """
  name = f'teacher/{metric}'
  if name in results.logged:
    level = results.curves(name)['value'].iloc[0]
    axis.axhline(level, label='teacher', **style.TEACHER)
  start = frame[frame['step'] == 0]['value'].dropna()
  if len(start) and metric in results.metrics:
    axis.axhline(start.mean(), label='undistilled student', **style.BEFORE)


def _legend(made, panels, name) -> None:
  """One for all panels, to their right."""
  found = {}
  for axis in panels:
    handles, labels = axis.get_legend_handles_labels()
    found |= dict(zip(labels, handles))
  # The lines' labels are the axis' values, the levels' come after them.
  levels = [key for key in found if key.startswith(('teacher', 'undistilled'))]
  names = [key for key in found if key not in levels] + levels
  made.legend(
    [found[key] for key in names], names, title=name, loc='outside right center'
  )


def _detail(
  results: Results, metric: str, panels: dict[str, list[Setting]], frame: Any
) -> str:
  """What the lines are."""
  of = 'validation examples' if metric in results.metrics else 'training'
  counts = [len(_going(frame, each)) for each in results.settings]
  panel = max(map(len, panels.values()))
  if max(counts) == 1:
    band = metric in results.metrics and panel == 1
    return f'{of}; one seed' + ', band: 95% interval over examples' * band
  fewest = min(count for count in counts if count)
  span = f'{fewest} to ' * (fewest < max(counts))
  text = f'{of}; means of {span}{max(counts)} seeds'
  bands = max(counts) >= FEW and panel <= MOST_BANDS
  text += ', bands: 95% intervals over seeds' * bands
  return text + ', thin: each of two seeds' * (2 in counts)
