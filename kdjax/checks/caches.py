"""Terms whose teacher is a cache of log-probabilities, not a live model."""

from kdjax.config import ONLINE, Config, task_section, tasks_of
from kdjax.objective import Objective


def cached(c: Config) -> frozenset[str]:
  """Returns the tasks whose teacher is a cache; '' is the main one."""
  return frozenset(
    name
    for name, part in tasks_of(c).items()
    if part.teacher_logprobs == 'cached'
  )


def problems(c: Config, name: str, goal: Objective) -> list[str]:
  """Returns what recipe `name` asks of its caches that they haven't got."""
  found = []
  for task in sorted(goal.cached & goal.tasks()):
    where, part = task_section(task), tasks_of(c)[task]
    if part.teacher_responses == ONLINE:
      found.append(
        f"{where}.teacher_logprobs='cached', but {where}.teacher_responses="
        f'{ONLINE!r}: name the directory that --mode=generate wrote with '
        'generate.top_logprobs'
      )
    readers = [term for term in goal.terms if term.task == task]
    if not any(map(goal.reads_cache, readers)):
      found.append(
        f"{where}.teacher_logprobs='cached' does nothing: recipe {name!r} "
        'compares with no teacher there; leave it out'
      )
  lacking = [f'recipe {name!r}: {each}' for each in goal.cache_problems()]
  if lacking:
    lacking[-1] += "; or keep the teacher, with teacher_logprobs='live'"
  return found + lacking
