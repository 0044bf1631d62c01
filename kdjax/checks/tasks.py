"""Tasks and their splits, metrics, and how checkpoints are ranked."""

from kdjax import evaluation
from kdjax.checks.models import given
from kdjax.config import Config
from kdjax.data import tasks


def problems(c: Config, mode: str) -> list[str]:
  """Returns what is wrong with the data, and with what is measured on it."""
  found = _metric_problems('eval.metrics', c.eval.metrics)
  for name, part in c.tasks.items():
    try:
      tasks.get(part.name, **part.args).check_split('train')
    except (ValueError, OSError) as error:
      found.append(f'tasks.{name}: {error}')
    if part.vocabulary != c.task.vocabulary:
      found.append(
        f'tasks.{name}.vocabulary={part.vocabulary!r} is not the main '
        f"task's, {c.task.vocabulary!r}: models read one vocabulary"
      )
  try:
    task = tasks.get(c.task.name, **c.task.args)
  except (ValueError, OSError) as error:
    return [*found, f'task: {error}']
  if not c.eval.metrics:
    found += _metric_problems('task.args.metrics', task.metrics)
  for split in splits_of(c, mode):
    try:
      task.check_split(split)
    except ValueError as error:
      found.append(f'task: {error}')
  if mode == 'train' and c.eval.every:
    metrics = c.eval.metrics or task.metrics
    found += _ranking_problems(c, metrics)
  return found


def _metric_problems(where: str, metrics: tuple[str, ...]) -> list[str]:
  found, known = [], sorted(evaluation.METRICS)
  if unknown := sorted(set(metrics) - set(known)):
    found.append(f'{where}: unknown {unknown}; known are {known}')
  return found + [f'{where}: {each}' for each in evaluation.missing(metrics)]


def splits_of(c: Config, mode: str) -> list[str]:
  """Returns the splits of the main task that a run reads."""
  if mode == 'generate':
    return [c.generate.split]
  if mode == 'train':
    validation = [c.eval.split] if c.eval.every else []
    return ['train', *validation, c.eval.test_split]
  return [c.eval.test_split]


def _ranking_problems(c: Config, metrics: tuple[str, ...]) -> list[str]:
  """What is wrong with how checkpoints are ranked."""
  if not metrics:
    return ['eval.metrics is empty, as are the metrics of the task: name one']
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
