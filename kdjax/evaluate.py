"""`--mode=evaluate`: scores and analyses of models, or of a file of texts."""

import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from kdjax import (
  build,
  checkpoints,
  distributed,
  evaluation,
  files,
  report,
  workdirs,
)
from kdjax.config import HARMLESS, ROLES, Config
from kdjax.evaluation import analyses, analysis_tables, predictions, rollouts
from kdjax.run import Run

logger = logging.getLogger(__name__)


def evaluate(config: Config, workdir: str) -> None:
  """Scores teacher and student, or texts, on the test split.

  The student is the workdir's best checkpoint (the last, if none is ranked), or
  where there is none, whole or damaged, the config's student. With `eval.texts`
  no model is loaded and the system is called 'texts'; without `eval.references`
  the teacher isn't scored.

  Prints the table, and those of `eval.analyses` beneath. Writes
  `evaluation.md`, `evaluation.json`, `examples.jsonl` and, where there are
  analyses, `analyses.json`.

  Raises:
    FileNotFoundError: there is no such file of texts.
    ValueError: the workdir belongs to another config, or none of its
      checkpoints is whole, or texts don't match the examples.
  """
  workdirs.check(workdir, dataclasses.asdict(config), HARMLESS)
  run = build.build(config, wanted=() if config.eval.texts else ROLES)
  folder = pathlib.Path(workdir)
  with jax.set_mesh(run.mesh):
    if config.eval.texts:
      params, results = None, {'texts': _score_texts(run)}
    else:
      params = _student(run, workdir)
      results = report.score(run, _systems(run, params))
    folder.mkdir(parents=True, exist_ok=True)
    report.publish(run, folder / 'evaluation', results)
    if config.eval.analyses:
      subject = _subject(run, params, results)
      _publish(folder, analyses.run(config.eval.analyses, subject))


def _systems(run: Run, params: Any) -> dict[str, tuple[str, Any]]:
  systems = {}
  if run.teacher is not None and run.config.eval.references:
    systems['teacher'] = 'teacher', run.teacher_params
  return {**systems, 'student': ('student', params)}


def _score_texts(run: Run) -> evaluation.Result:
  c = run.config.eval
  examples = run.examples(c.test_split, c.test_examples)
  if examples.responses is None:
    raise ValueError(
      f'eval.texts={c.texts!r}: the {c.test_split} split of '
      f'{run.task.name!r} has no gold responses to score them against'
    )
  return evaluation.score_texts(
    predictions.read(c.texts, examples.ids),
    list(examples.references),
    run.metrics,
    inputs=list(examples.inputs),
    example_id=np.arange(len(examples)),
    seed=run.config.seed,
  )


def _subject(
  run: Run, params: Any, results: dict[str, evaluation.Result]
) -> analyses.Subject:
  """Returns what is analysed: models where `params` are, else texts."""
  c = run.config
  settings = {
    'results': results,
    'samples': c.eval.samples_per_prompt,
    'temperatures': c.eval.temperatures,
    'temperature': c.eval.sample_temperature,
    'top_p': c.eval.sample_top_p,
    'length_edges': c.eval.length_edges,
    'seed': c.seed,
  }
  if params is None:
    return analyses.Subject(**settings)
  pair = None
  if run.teacher is not None:
    pair = rollouts.Pair(
      student=run.student,
      student_params=params,
      teacher=run.teacher,
      teacher_params=run.teacher_params,
      max_new_tokens=c.task.max_response_tokens,
      seed=c.seed,
      place=run.place,
    )
  examples = run.examples(c.eval.test_split, c.eval.test_examples)
  return analyses.Subject(
    **settings,
    batches=lambda: run.batches(examples, c.eval.batch_size),
    evaluator=run.evaluator('student'),
    params=params,
    pair=pair,
  )


def _publish(folder: pathlib.Path, found: dict[str, Any]) -> None:
  """Prints analyses; adds them to evaluation.md, writes analyses.json."""
  if not distributed.leads():
    return
  text = analysis_tables.analysis_tables(found) + '\n'
  print(text, flush=True)
  tables = folder / 'evaluation.md'
  files.write(tables, tables.read_bytes() + f'\n{text}'.encode())
  whole = json.dumps(found, indent=2, allow_nan=False)
  files.write(folder / 'analyses.json', whole + '\n')


def _student(run: Run, workdir: str) -> Any:
  with report.open_checkpoints(run, workdir, read_only=True) as saved:
    if saved.empty:
      return run.initial_params()
    template = checkpoints.abstract(run.initial_state())
    step, restored = saved.restore(template, best=True)
    logger.info('student: step %d of %s', step, workdir)
  return restored.params['student']
