"""Results as Markdown: which setting is best, tables, and what failed."""

from typing import Any

from kdjax import evaluation
from kdjax.evaluation import report
from kdjax.results import tables
from kdjax.results.figures import settings as shown
from kdjax.results.folder import BEFORE, TEACHER
from kdjax.results.intervals import estimate
from kdjax.results.sweep import Results


def markdown(results: Results) -> str:
  """Returns results.md: sentences, tables with their caption, failed runs."""
  title = results.source or results.path.resolve().name
  blocks = [f'# Results of {title}']
  if results.metrics:
    metrics = results.metrics
    blocks += [str(results.best(metrics[0])), caption(results)]
    blocks += [scores(results), '\n'.join(_conventions(metrics))]
    if any(each.before for each in results.settings):
      blocks += ['## Gain over the undistilled student', gains(results)]
  return '\n\n'.join([*filter(None, blocks), *_unfinished(results)]) + '\n'


def caption(results: Results) -> str:
  """Returns what the tables are of, and what their intervals say."""
  metric = results.metrics[0]
  task = results.config.get('task', {}).get('name', '')
  split = results.config.get('eval', {}).get('test_split', '')
  system = next(s for x in results.settings for s in x.systems.values())
  count = len(system.examples.ids) if system.examples else 0
  about = [
    task,
    f'{split} split' * bool(split),
    f'{count} examples' * bool(count),
    shown.seeds(results, metric),
  ]
  text = ', '.join(filter(None, about)) + '. The best of each metric is bold.'
  most = max(len(each.systems) for each in results.settings)
  if most == 1:
    text += (
      ' With one seed nothing is known of how seeds differ: another may rank '
      'the settings otherwise.'
    )
  else:
    text += (
      ' Intervals are wide where seeds are few, which tell little about how '
      'seeds differ (kdjax/results/intervals.py).'
    )
  return text


def scores(results: Results) -> str:
  """Returns the table of all metrics."""
  metrics = results.metrics
  best = {metric: results.best(metric).setting for metric in metrics}
  rows = [
    [*_axes(results), 'seeds', *(evaluation.heading(each) for each in metrics)]
  ]
  for name, known in results.references.items():
    for key in (TEACHER, BEFORE):
      if key in known:
        label = {TEACHER: 'teacher', BEFORE: 'undistilled student'}[key]
        label += f' ({name})' * (len(results.references) > 1)
        cells = [estimate([known[key]], metric) for metric in metrics]
        rest = [''] * (len(_axes(results)) - 1)
        rows.append([label, *rest, '', *map(tables.cell, cells)])
  for setting in results.settings:
    cells = []
    for metric in metrics:
      cell = tables.cell(setting.estimate(metric))
      cells.append(f'**{cell}**' if setting is best[metric] else cell)
    rows.append([*_values(results, setting), *cells])
  return report.markdown(rows)


def gains(results: Results) -> str:
  """Returns the table of all gains, with the intervals of the differences."""
  metrics = results.metrics
  rows = [
    [*_axes(results), 'seeds', *(evaluation.heading(each) for each in metrics)]
  ]
  for setting in results.settings:
    found = [setting.gain(metric) for metric in metrics]
    cells = [tables.cell(each, signed=True) for each in found]
    rows.append([*_values(results, setting), *cells])
  return report.markdown(rows)


def _axes(results: Results) -> list[str]:
  return list(results.axes) or ['system']


def _values(results: Results, setting: Any) -> list[str]:
  known = [setting.values.get(name, '') for name in results.axes]
  cells = [str(value) for value in known] or ['student']
  return [*cells, str(len(setting.systems))]


def _conventions(metrics: Any) -> list[str]:
  known = evaluation.CONVENTIONS
  return [f'- {name}: {known[name]}.' for name in metrics if name in known]


def _unfinished(results: Results) -> list[str]:
  found = [
    f'{name} has not been scored (see its log.txt): no gains over it.'
    for name, known in results.references.items()
    if name and not known
  ]
  for state, title in (('failed', 'Failed runs'), ('pending', 'Pending runs')):
    runs = [run for run in results.runs if run.state == state]
    if runs:
      lines = [f'- {run.name}' + _reason(run.reason) for run in runs]
      found.append(
        '\n'.join([f'{title}, left out of the numbers:', '', *lines])
      )
  return found


def _reason(text: str) -> str:
  lines = text.splitlines()
  return f': {lines[-1]}' if lines else ''
