"""Results as data frames, Markdown and sentences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdjax import evaluation
from kdjax.evaluation import report
from kdjax.results import intervals
from kdjax.results.folder import AFTER, BEFORE, TEACHER
from kdjax.results.intervals import Estimate

if TYPE_CHECKING:
  from kdjax.results.folder import Run
  from kdjax.results.sweep import Best, Results


def table(results: 'Results', metrics: Sequence[str]) -> Any:
  """`Results.table`, of metrics that are there."""
  rows = []
  for name, known in results.references.items():
    for system in (TEACHER, BEFORE):
      if system in known:
        mark = f' ({name})' if len(results.references) > 1 else ''
        row = {'system': system + mark, 'seeds': 1}
        for metric in metrics:
          found = intervals.estimate([known[system]], metric)
          row |= _columns(metric, found, Estimate(math.nan))
        rows.append(row)
  for setting in results.settings:
    row = {'system': AFTER, **setting.values, 'seeds': len(setting.systems)}
    for metric in metrics:
      found, gain = setting.estimate(metric), setting.gain(metric)
      row |= _columns(metric, found, gain)
    rows.append(row)
  return _frame(results, rows, ['system', *results.axes, 'seeds'])


def _columns(metric: str, found: Estimate, gain: Estimate) -> dict[str, Any]:
  return {
    metric: found.value,
    f'{metric}_low': found.low,
    f'{metric}_high': found.high,
    f'{metric}_sd': found.sd,
    f'{metric}_n': found.seeds,
    f'{metric}_over': found.over,
    f'{metric}_gain': gain.value,
    f'{metric}_gain_low': gain.low,
    f'{metric}_gain_high': gain.high,
  }


def long(results: 'Results') -> Any:
  """`Results.long`."""
  rows = [
    _about(run) | {'state': run.state, **run.scores} for run in results.runs
  ]
  return _frame(results, rows, ['run', *results.axes, 'seed', 'state'])


def curves(results: 'Results', metric: str) -> Any:
  """`Results.curves`."""
  known = results.logged
  name = f'eval/{metric}' if f'eval/{metric}' in known else metric
  if name not in known:
    known = sorted(each.removeprefix('eval/') for each in known)
    raise ValueError(
      f'{results.path}: no metrics.jsonl has {metric!r}; there are {known}.'
    )
  rows = [
    _about(run) | _point(line, name)
    for run in results.runs
    for line in results.lines[run.name]
    if name in line
  ]
  columns = ['step', 'seconds', 'sampled_tokens', 'value', 'low', 'high']
  return _frame(results, rows, ['run', *results.axes, 'seed', *columns])


def _point(line: dict[str, Any], name: str) -> dict[str, float]:
  columns = {
    'step': 'step',
    'seconds': 'total/seconds',
    'sampled_tokens': 'total/sampled_tokens',
    'value': name,
    'low': f'{name}_low',
    'high': f'{name}_high',
  }
  found = {column: line.get(key) for column, key in columns.items()}
  return {k: math.nan if v is None else v for k, v in found.items()}


def _about(run: 'Run') -> dict[str, Any]:
  return {'run': run.name, **run.values, 'seed': run.seed}


def _frame(
  results: 'Results', rows: Sequence[dict[str, Any]], first: Sequence[str]
) -> Any:
  import pandas as pd

  frame = pd.DataFrame(rows)
  missing = [name for name in first if name not in frame]
  frame[missing] = None
  rest = [name for name in frame if name not in first]
  frame = frame[[*first, *rest]]
  # So that whole numbers stay whole where some rows lack the axis.
  axes = list(results.axes)
  frame[axes] = frame[axes].convert_dtypes()
  return frame


def cell(found: Estimate, *, signed: bool = False) -> str:
  """Returns '61.20 [59.90, 62.40]', without the ends where there are none."""
  if math.isnan(found.value):
    return '-'
  text = report.cell(evaluation.Interval(*found[:3]), signed=signed)
  return text.partition(' ')[0] if math.isnan(found.low) else text


def sentence(best: 'Best') -> str:
  """Returns what `best` says, in words."""
  less = ', less is better' if evaluation.lower_is_better(best.metric) else ''
  text = (
    f'Best by {best.metric}{less}: {best.setting.label} with {cell(best.score)}'
  )
  if not math.isnan(best.gain.value):
    text += f', {cell(best.gain, signed=True)} over the undistilled student'
  if best.runner_up is not None:
    text += (
      f'; {cell(best.over_runner_up, signed=True)} over the runner-up, '
      f'{best.runner_up.label}'
    )
  text += '.'
  if best.alike:
    names = '; '.join(each.label for each in best.alike)
    text += f" Can't be told from it: {names}."
  elif best.runner_up is not None:
    text += ' All other settings are worse by more than chance'
    one = best.score.seeds == 1
    text += ', that of the examples: there is one seed.' if one else '.'
  return text
