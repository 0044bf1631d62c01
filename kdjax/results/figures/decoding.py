"""Figures of what `--mode=evaluate` analyses: temperatures, exposure bias."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax import evaluation
from kdjax.results import reading, style
from kdjax.results.figures import settings as shown
from kdjax.results.folder import BEFORE
from kdjax.results.sweep import Results

Source = Results | Mapping[str, Any] | Sequence[str | os.PathLike]


def analyses(source: Source) -> dict[str, list[dict[str, Any]]]:
  """Returns analyses by the name of what was analysed, several where seeds are.

  Args:
    source: a sweep's results, of which every setting is one and the reference
      another; or what an analyses.json holds, by name; or folders that have
      one.

  Raises:
    ValueError: there are none.
  """
  if isinstance(source, Results):
    found = _of_sweep(source)
  elif isinstance(source, Mapping):
    found = {name: [each] for name, each in source.items()}
  else:
    paths = [pathlib.Path(folder) / 'analyses.json' for folder in source]
    found = {path.parent.name: [reading.read(path)] for path in paths}
  if not found:
    raise ValueError(
      'There are no analyses: run --mode=evaluate with --config.eval.analyses '
      'on the workdirs.'
    )
  return found


def _of_sweep(results: Results) -> dict[str, list[dict[str, Any]]]:
  found = {}
  for known in results.references.values():
    path = BEFORE in known and known[BEFORE].folder / 'analyses.json'
    # A single run's would be those of the student that it trained.
    if path and results.source and path.exists():
      found['undistilled student'] = [reading.read(path)]
  for setting in results.settings:
    paths = [run.workdir / 'analyses.json' for run in setting.runs]
    own = [reading.read(path) for path in paths if path.exists()]
    if own:
      found[shown.own_label(results, setting)] = own
  return found


def available(results: Results) -> set[str]:
  """Returns the names of the analyses that a sweep has."""
  known = [each for own in _of_sweep(results).values() for each in own]
  return {name for each in known for name in each}


def _students(source: Source, analysis: str) -> dict[str, list[Any]]:
  found = {
    name: [each[analysis]['student'] for each in own if analysis in each]
    for name, own in analyses(source).items()
  }
  found = {name: own for name, own in found.items() if own}
  if not found:
    raise ValueError(
      f'No analyses.json has {analysis!r}; run --mode=evaluate '
      f'--config.eval.analyses={analysis}.'
    )
  return found


def temperatures(source: Source, metric: str | None = None) -> Any:
  """Draws a metric, and the self-BLEU of samples, over the temperature.

  The figures of Agarwal et al., "On-policy distillation of language models",
  2024 (GKD), section 4: quality falls with the temperature, diversity rises
  (less self-BLEU). Of several seeds the means.

  Args:
    source: see `analyses`.
    metric: its name, None for the first that was measured.

  Raises:
    ValueError: nothing has been analysed, or not that metric.
  """
  students = _students(source, 'temperatures')
  first = next(iter(students.values()))[0][0]
  names = [k for k in first if f'{k}_low' in first and k != 'self_bleu']
  metric = metric or next(iter(names), 'self_bleu')
  if metric not in first:
    raise ValueError(
      f'The temperatures have no metric {metric!r}; there are {names}.'
    )
  with style.style():
    made, axes = style.figure(1, 2, width=9.5, height=3.9, sharex=True)
    for (name, runs), look in zip(students.items(), style.lines(len(students))):
      for axis, column in zip(axes[0], (metric, 'self_bleu')):
        _line(axis, runs, column, label=name, **look)
    axes[0, 0].set_title(evaluation.heading(metric))
    axes[0, 1].set_title('self-BLEU (less is more diverse)')
    for axis in axes[0]:
      axis.set_xlabel('sampling temperature')
    _legend(made, axes[0, 0], len(students))
    style.title(
      made,
      f'{metric} and diversity against the temperature',
      'of sampled responses; ' + _bands(students, 'examples'),
    )
  return made


def _line(axis: Any, runs: Sequence[Any], column: str, **look: Any) -> None:
  """The mean over seeds, by ascending temperature; a lone seed's interval."""
  found: dict[float, list[Any]] = {}
  for rows in runs:
    for row in rows:
      found.setdefault(row['temperature'], []).append(row)
  xs = sorted(found)
  mean = lambda name: [
    float(np.mean(_numbers([row.get(name) for row in found[x]]))) for x in xs
  ]
  axis.plot(xs, mean(column), **look)
  if len(runs) == 1:
    low, high = mean(f'{column}_low'), mean(f'{column}_high')
    axis.fill_between(xs, low, high, color=look['color'], alpha=0.15, lw=0)


def _bands(students: Mapping[str, Sequence[Any]], over: str) -> str:
  seeds = max(map(len, students.values()))
  if seeds > 1:
    return f'means of up to {seeds} seeds'
  return f'band: 95% interval over {over}'


def exposure_bias(source: Source) -> Any:
  """Draws ExError% against the length.

  How much worse than on the teacher's prefixes the student is on its own: the
  figure of LLMR (Li et al., 2024), after Arora et al., "Why exposure bias
  matters", 2022. Bands are the bootstrap's 95% intervals over prompts; of
  several seeds only the means are drawn.

  Args:
    source: see `analyses`.

  Raises:
    ValueError: nothing has been analysed.
  """
  students = _students(source, 'exposure_bias')
  with style.style():
    made, ((axis,),) = style.figure(width=8, height=4.2)
    for (name, runs), look in zip(students.items(), style.lines(len(students))):
      length = min((run['length'] for run in runs), key=len)
      error, low, high = (
        np.mean([_numbers(run[k])[: len(length)] for run in runs], axis=0)
        for k in ('ex_error', 'excess_error_low', 'excess_error_high')
      )
      axis.plot(length, error, label=name, **look)
      if len(runs) == 1:
        axis.fill_between(
          length, low, high, color=look['color'], alpha=0.15, lw=0
        )
    axis.axhline(0, color='#999999', linewidth=1)
    axis.set_xlabel('length of the prefix (tokens)')
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel('ExError%')
    _legend(made, axis, len(students))
    style.title(
      made,
      'Exposure bias against length',
      'divergence from the teacher on own prefixes over that on the '
      "teacher's, less 1; " + _bands(students, 'prompts'),
    )
  return made


def _numbers(values: Sequence[float | None]) -> np.ndarray:
  return np.array([np.nan if each is None else each for each in values], float)


def _legend(made: Any, axis: Any, count: int) -> None:
  if count > 1:
    made.legend(
      *axis.get_legend_handles_labels(),
      loc='outside right center',
      fontsize=9.5,
    )
