"""Files and folders of this machine that a run would read, and aren't there."""

import pathlib

from kdjax import hub, recipes
from kdjax.checks.tasks import splits_of
from kdjax.config import ONLINE, ROLES, Config, task_section, tasks_of
from kdjax.data import tasks


def problems(c: Config) -> list[str]:
  """Returns what isn't there; whether the hub has the rest shows later.

  Args:
    c: a config with no other problem.
  """
  goal, found = recipes.build(**c.recipe), []
  for role in ROLES:
    try:
      hub.local(getattr(c, role).path)
    except FileNotFoundError as error:
      found.append(f'{role}.path: {error}')
  for name, part in tasks_of(c).items():
    where = task_section(name)
    splits = ['train'] if name else splits_of(c, 'train')
    source = tasks.get(part.name, **part.args).source
    for split in splits:
      try:
        source.name(split)
      except OSError as error:
        found.append(f'{where}: {error}')
    said = part.teacher_responses
    reads = 'teacher' in goal.sources(name) and said != ONLINE
    if reads and not pathlib.Path(said).is_dir():
      found.append(
        f'{where}.teacher_responses={said!r}: there is no such folder. Write '
        'it with --mode=generate'
      )
  return list(dict.fromkeys(found))
