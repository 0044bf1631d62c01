"""The finding in a few sentences, and honest about what the data can't say."""

from collections.abc import Mapping
from typing import Any

from kdjax.page.numbers import Interval, cell, interval, overlap

# Settings that can't be told from the best are named up to this many.
_NAMED = 3


def recovered(
  before: Interval | None, after: Interval, teacher: Interval | None
) -> float | None:
  """Returns (after - before) / (teacher - before).

  None where the gap isn't known, or may be none: the intervals of teacher and
  student overlap, so that the quotient is noise.
  """
  if before is None or teacher is None or overlap(before, teacher):
    return None
  return (after[0] - before[0]) / (teacher[0] - before[0])


def of_run(
  metric: str, lower: bool, systems: Mapping[str, Interval], gain: Interval
) -> list[str]:
  """Says what distillation did to the student, by one metric.

  Args:
    metric: its name.
    lower: whether less is better.
    systems: of 'teacher', 'student before' and 'student after' those that were
      scored.
    gain: after - before, paired over examples.
  """
  after = systems.get('student after')
  before, teacher = systems.get('student before'), systems.get('teacher')
  theirs = f' The teacher scores {cell(teacher)}.' if teacher else ''
  if after is None:
    return ['There are no test scores.']
  if before is None:
    return [f'The student scores {metric} {cell(after)}.{theirs}']
  numbers = f'{metric}: {cell(before)} before, {cell(after)} after'
  difference = f'{numbers}, {cell(gain, signed=True)}.{theirs}'
  if not _apart(gain, before, after):
    return [
      f'Distillation makes no clear difference to {metric}.',
      f'{difference} By these test examples the two are hard to tell apart.',
    ]
  if (after[0] < before[0]) != lower:
    return [f'Distillation makes {metric} worse.', difference]
  share = recovered(before, after, teacher)
  if share is None:
    return [f'Distillation improves {metric}.', difference]
  return [
    f'Distillation recovers {share:.0%} of the gap to the teacher.',
    difference,
  ]


def _apart(gain: Interval, before: Interval, after: Interval) -> bool:
  """Whether a gain is more than chance; unpaired where examples are missing."""
  if None in gain:
    return not overlap(before, after)
  return gain[1] > 0 or gain[2] < 0


def of_sweep(
  best: Any | None, before: Interval | None, teacher: Interval | None
) -> list[str]:
  """Says which setting was best, by how much, and what can't be told from it.

  Args:
    best: a `kdjax.results.Best`, None if no run is done.
    before: the undistilled student's score.
    teacher: the teacher's.
  """
  if best is None:
    return ['No run is done yet.']
  top, label = interval(best.score), best.setting.label
  gain = interval(best.gain)[:1]
  by = f', {cell(gain, signed=True)} {best.metric} over the undistilled student'
  by = '' if None in gain else by
  first = f'{label} is best{by}'
  if best.alike:
    count = len(best.alike)
    others = f'{count} others' if count > 1 else 'one other'
    first = f"{label} scores best{by}, but can't be told from {others}"
  elif best.runner_up is None:
    first = f'{label} is the only setting that is done{by}'
  return [
    f'{first}.',
    f'{best.metric} {cell(top)}{_against(best, top, before, teacher)}.',
    *_runners_up(best),
  ]


def _against(best, top, before, teacher) -> str:
  parts = ''
  if before is not None:
    gain = cell(interval(best.gain), signed=True)
    parts += f': {gain} over the undistilled student, {cell(before)}'
  if teacher is not None:
    parts += f'; the teacher scores {cell(teacher)}'
    share = recovered(before, top, teacher)
    if share is not None:
      parts += f', so {share:.0%} of the gap is closed'
  return parts


def _runners_up(best) -> list[str]:
  if best.runner_up is None:
    return []
  gain = cell(interval(best.over_runner_up), signed=True)
  found = [f'Over the runner-up, {best.runner_up.label}: {gain}.']
  if best.alike:
    names = '; '.join(each.label for each in best.alike[:_NAMED])
    more = len(best.alike) - _NAMED
    rest = f'; and {more} more' if more > 0 else ''
    found.append(f"Can't be told from the best: {names}{rest}.")
  else:
    found.append('All others are worse by more than chance.')
  return [' '.join(found)]
