"""What a config gets wrong that only the registries can tell."""

import ml_collections

from kdjax import evaluation, recipes
from kdjax.config import Config, ConfigError, Model, check
from kdjax.data import tasks
from kdjax.models import families

ROLES = ('student', 'teacher')


def validate(config: ml_collections.ConfigDict, mode: str = 'train') -> Config:
  """Returns a config's typed view, checked against every registry.

  Args:
    config: as a config file returns it.
    mode: what it is for: 'train', 'evaluate' or 'generate'.

  Raises:
    ConfigError: listing every problem, before any device is touched.
  """
  view, found = check(config)
  found += _recipe_problems(view, mode)
  found += _task_problems(view, mode)
  found += _model_problems(view, mode)
  if found:
    raise ConfigError(found)
  return view


def _recipe_problems(c: Config, mode: str) -> list[str]:
  args = dict(c.recipe)
  name = args.pop('name', None)
  if name is None:
    return []
  found = recipes.problems(name, args)
  if found or mode != 'train':
    return found
  goal = recipes.build(name, **args)
  if goal.needs_teacher and not given(c.teacher):
    found.append(
      f'recipe {name!r} reads the teacher: give teacher.path or teacher.config'
    )
  if 'teacher' in goal.sources() and not c.teacher_responses:
    found.append(
      f'recipe {name!r} learns from teacher responses: write them with '
      '--mode=generate and name their directory in teacher_responses'
    )
  return found


def _task_problems(c: Config, mode: str) -> list[str]:
  found = []
  unknown = sorted(set(c.eval.metrics) - set(evaluation.METRICS))
  if unknown:
    known = sorted(evaluation.METRICS)
    found.append(f'eval.metrics: unknown {unknown}; known are {known}')
  try:
    task = tasks.get(c.task.name, **c.task.args)
  except (ValueError, OSError) as error:
    return [*found, f'task: {error}']
  for split in _splits(c, mode):
    try:
      task.check_split(split)
    except ValueError as error:
      found.append(f'task: {error}')
  if mode == 'train' and c.eval.every:
    metrics = c.eval.metrics or task.metrics
    found += _ranking_problems(c, metrics)
  return found


def _splits(c: Config, mode: str) -> list[str]:
  """The splits that a run reads."""
  if mode == 'generate':
    return [c.generate.split]
  if mode == 'train':
    validation = [c.eval.split] if c.eval.every else []
    return ['train', *validation, c.eval.test_split]
  return [c.eval.test_split]


def _ranking_problems(c: Config, metrics: tuple[str, ...]) -> list[str]:
  """What is wrong with how checkpoints are ranked."""
  name, mode = c.checkpoint.best_metric or metrics[0], c.checkpoint.best_mode
  known = [*metrics, 'eos_fraction', 'length']
  if given(c.teacher) and c.eval.divergences:
    known += [
      f'{divergence}_{source}'
      for divergence in ('forward_kl', 'reverse_kl')
      for source in ('gold', 'student')
    ]
  if name not in known:
    return [
      f'checkpoint.best_metric={name!r} is not measured; measured are {known}'
    ]
  if evaluation.lower_is_better(name) and mode == 'max':
    return [
      f"checkpoint.best_mode='max', but less {name} is better: set it to 'min'"
    ]
  return []


def _model_problems(c: Config, mode: str) -> list[str]:
  found = []
  for role in ROLES:
    try:
      if config := getattr(c, role).config:
        families.get(config)
    except ValueError as error:
      found.append(f'{role}.config: {error}')
  if mode == 'generate' and not given(getattr(c, c.generate.model)):
    found.append(
      f'generate.model={c.generate.model!r}, but neither '
      f'{c.generate.model}.path nor {c.generate.model}.config is given'
    )
  return found


def given(model: Model) -> bool:
  """Returns whether a config names a model."""
  return bool(model.path or model.config)
