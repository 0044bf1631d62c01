"""What a run shows and leaves: samples, table, plot, and the student."""

import dataclasses
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax import (
  checkpoints,
  data,
  distributed,
  evaluation,
  files,
  metrics,
  models,
  page,
  roles,
)
from kdjax.config import HARMLESS
from kdjax.run import Run

logger = logging.getLogger(__name__)


class Validation:
  """Scores the student on the validation examples while it trains."""

  def __init__(self, run: Run):
    self._run = run
    c = run.config.eval
    self._examples = run.examples(c.split, c.examples)

    self._teacher: evaluation.Result | None = None

  def _score_teacher(self, check: Callable[[], None]) -> None:
    """Scores it once: it doesn't change."""
    run = self._run
    wanted = run.teacher is not None and run.config.eval.references
    if wanted and self._teacher is None:
      self._teacher = _evaluate(
        run, 'teacher', run.teacher_params, self._examples, check
      )

  def __call__(
    self,
    step: int,
    params: Any,
    check: Callable[[], None] = lambda: None,
  ) -> tuple[dict[str, float], str]:
    """Returns the student's scores by name, and samples side by side.

    Args:
      step: for the log.
      params: the student's.
      check: called before every batch.
    """
    run, c = self._run, self._run.config.eval
    result = _evaluate(run, 'student', params, self._examples, check)
    self._score_teacher(check)
    scalars = {f'eval/{k}': v for k, v in result.scalars().items()}
    results = {'student': result}
    if self._teacher is not None:
      results = {'teacher': self._teacher, **results}
      name = run.metrics[0]
      scalars[f'teacher/{name}'] = self._teacher.metrics[name].value
    samples = evaluation.samples(results, c.samples)
    if sys.stderr.isatty():
      logger.info('samples\n\n%s\n', samples)
    found = {name: result.metrics[name].value for name in run.metrics}
    shown = ', '.join(f'{name} {value:.2f}' for name, value in found.items())
    logger.info('step %d: %s', step, shown)
    return scalars, samples


def _evaluate(
  run: Run,
  role: str,
  params: Any,
  examples: data.Examples,
  check: Callable[[], None] = lambda: None,
) -> evaluation.Result:
  def batches():
    for batch in run.batches(examples, run.config.eval.batch_size):
      check()
      yield batch
    # The scores of all texts take their time, too.
    check()

  evaluator = run.evaluator(role)
  return evaluator(
    params,
    batches(),
    teacher_params=None if evaluator.teacher is None else run.teacher_params,
  )


def finish(run: Run, workdir: str, params: Mapping[str, Any]) -> None:
  """Evaluates on the test split, prints the table, writes plot and export.

  Writes `results.md`, `results.json`, `examples.jsonl`, `curve.png`,
  `report.html` and `student/`, a Hugging Face directory; beside it
  `auxiliary.safetensors`, where terms have parameters of their own. Where the
  split has no gold responses there is no table.
  """
  workdir = pathlib.Path(workdir)
  extra = {name: each for name, each in params.items() if name != 'student'}
  params = params['student']
  export(run, workdir / 'student', params, extra)
  c = run.config.eval
  if run.examples(c.test_split, c.test_examples).responses is None:
    logger.warning('no table: the %s split has no gold responses', c.test_split)
  else:
    systems = {}
    if run.teacher is not None and c.references:
      systems['teacher'] = 'teacher', run.teacher_params
    if run.config.student.path and c.references:
      systems['student before'] = 'student', run.initial_params()
    systems['student after'] = 'student', params
    publish(run, workdir / 'results', score(run, systems))
  if distributed.leads():
    curve(workdir, run.metrics[0])
    print(f'curve: {workdir}/curve.png\nstudent: {workdir}/student')
    print(f'report: {page.write(workdir)}')


def score(
  run: Run, systems: dict[str, tuple[str, Any]]
) -> dict[str, evaluation.Result]:
  """Evaluates each system's (role, parameters) on the test split."""
  c = run.config.eval
  examples = run.examples(c.test_split, c.test_examples)
  return {
    name: _evaluate(run, role, params, examples)
    for name, (role, params) in systems.items()
  }


def publish(
  run: Run, path: pathlib.Path, results: dict[str, evaluation.Result]
) -> None:
  """Prints samples and the table; writes them, as path.md and path.json."""
  names = list(results)
  pair = ('student before', 'student after')
  table = evaluation.table(results, pair if set(pair) <= set(names) else None)
  samples = evaluation.samples(results, run.config.eval.samples)
  title = f'{run.task.name}, {run.config.eval.test_split} split'
  text = f'{samples}\n\n{title}, bootstrap 95% intervals\n\n{table}\n'
  if distributed.leads():
    print(f'\n{text}', flush=True)
    scalars = {name: result.scalars() for name, result in results.items()}
    files.write(path.with_suffix('.md'), text)
    evaluation.write_examples(
      path.with_name('examples.jsonl'),
      results,
      run.vocabulary.pieces,
      browse=run.config.eval.browse,
    )
    # The last one: it says that all is there.
    files.write(path.with_suffix('.json'), json.dumps(scalars, indent=2) + '\n')


def export(
  run: Run,
  directory: pathlib.Path,
  params: Any,
  auxiliary: Mapping[str, Any] = {},
) -> None:
  """Writes the student as a directory that transformers loads."""
  writes = distributed.leads()

  # One array at a time: only the process that writes holds all of them.
  def kept(x):
    whole = distributed.fetch(x)
    return whole if writes else None

  params, auxiliary = jax.tree.map(kept, (params, dict(auxiliary)))
  if writes:
    with files.directory(directory) as fresh:
      models.save_pretrained(fresh, run.student, params)
      roles.save_auxiliary(fresh, auxiliary)
      run.vocabulary.save_pretrained(fresh)


def curve(workdir: pathlib.Path, metric: str) -> None:
  """Plots the validation metric and the losses over the steps."""
  from matplotlib import figure as figures

  lines = metrics.read(workdir)
  losses = sorted({k for line in lines for k in line if k.startswith('loss/')})
  panels = [[f'eval/{metric}', f'teacher/{metric}'], losses]
  panels = [
    [name for name in panel if any(name in line for line in lines)]
    for panel in panels
  ]
  panels = [panel for panel in panels if panel]
  # No pyplot: nothing global is left behind, no window is opened.
  figure = figures.Figure(figsize=(5 * len(panels), 3.5), layout='tight')
  (axes,) = figure.subplots(1, len(panels), squeeze=False)
  for axis, panel in zip(axes, panels):
    for name in panel:
      _draw(axis, lines, name)
    axis.set_xlabel('step')
    axis.legend(frameon=False)
    axis.spines[['top', 'right']].set_visible(False)
  with files.whole(workdir / 'curve.png') as file:
    figure.savefig(file, format='png', dpi=120)


def _draw(axis: Any, lines: Sequence[dict[str, Any]], name: str) -> None:
  points = [(line['step'], line[name]) for line in lines if name in line]
  steps, values = zip(*points)
  if name.startswith('teacher/'):
    axis.axhline(values[-1], linestyle='--', color='gray', label='teacher')
    return
  label = name.replace('eval/', 'student ')
  axis.plot(steps, values, marker='o', markersize=3, label=label)


def open_checkpoints(
  run: Run, workdir: str | os.PathLike, **options: Any
) -> checkpoints.Checkpoints:
  """Opens a run's checkpoints, ranked as its config says."""
  c = run.config.checkpoint
  return checkpoints.Checkpoints(
    str(workdir),
    every=c.every,
    keep_last=c.keep_last,
    keep_best=c.keep_best,
    best_metric=f'eval/{c.best_metric or run.metrics[0]}',
    best_mode=c.best_mode,
    config=dataclasses.asdict(run.config),
    harmless=HARMLESS,
    **options,
  )
