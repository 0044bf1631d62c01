"""Files and folders of this machine that a run would read, and aren't there."""

import pathlib

from kdjax import hub, recipes
from kdjax.checks.tasks import splits_of
from kdjax.config import ONLINE, ROLES, Config, task_section, tasks_of
from kdjax.data import tasks


def problems(c: Config) -> list[str]:
  """Returns what isn't there; whether the hub has the rest shows later."""
  found = []
  for role in ROLES:
    try:
      hub.local(getattr(c, role).path)
    except FileNotFoundError as error:
      found.append(f'{role}.path: {error}')
  for name, part in tasks_of(c).items():
    where = task_section(name)
    splits = ['train'] if name else splits_of(c, 'train')
    try:
      source = tasks.get(part.name, **part.args).source
    except (ValueError, OSError):
      continue  # which `tasks.problems` says
    for split in splits:
      try:
        source.name(split)
      except OSError as error:
        found.append(f'{where}: {error}')
    said = part.teacher_responses
    if said in ('', ONLINE) or pathlib.Path(said).is_dir():
      continue
    if _reads_teacher(c, name):
      found.append(
        f'{where}.teacher_responses={said!r}: there is no such folder. Write '
        'it with --mode=generate'
      )
  return list(dict.fromkeys(found))


def _reads_teacher(c: Config, task: str) -> bool:
  """Returns whether the recipe reads what a teacher said to a task."""
  args = dict(c.recipe)
  if recipes.problems(args.pop('name', ''), args):
    return False
  return 'teacher' in recipes.build(**c.recipe).sources(task)
