"""The good examples of a split as text, and what is told of the bad ones."""

import itertools

from kdjax.data import faults, tasks
from kdjax.data.faults import BadExample, LeftOut

CHOICES = ('error', 'skip')
_LABELS = ('target', 'rejected')


def gather(
  task: tasks.Task,
  split: str,
  form: tasks.Format,
  *,
  limit: int | None = None,
  on_bad_example: str = 'error',
) -> tuple[list[tasks.Example], LeftOut]:
  """Returns a split's good examples, and what else it holds.

  Bad are: a row that cannot be read, or not by the task; what isn't text where
  text belongs; an empty response, or prompt where the task has prompts; a NUL
  character; an id that an earlier example has; no response where others have
  one. Ids count rows, bad ones too: leaving those out renames no other.

  Args:
    task: the task.
    split: a split that it has.
    form: the task's `format` or `chat_format`.
    limit: reads only so many rows.
    on_bad_example: 'error' or 'skip'.

  Raises:
    ValueError: no example is left; or one is bad, and `on_bad_example` is
      'error'. It says where and why, and how many more there are.
  """
  found = _Gathered(task.prompted)
  rows = itertools.islice(task.source.rows(split), limit)
  total = 0
  for index, row in enumerate(rows):
    total += 1
    place = getattr(row, 'place', '') or f'row {index}'
    try:
      examples = faults.read_by(lambda r, i: list(form(r, i)), row, index)
    except BadExample as fault:
      found.leave_out(fault, place)
      continue
    for example in examples:
      found.take(example, place)
  found.check_labels()
  name = task.source.name(split)
  if found.left_out and not found.examples:
    raise ValueError(
      f'{name}: none of its {total} rows gives an example: {found.left_out}. '
      f'The first: {found.first}'
    )
  if found.left_out and on_bad_example == 'error':
    raise ValueError(f'{name}, {found.complaint()}')
  if not found.examples:
    raise ValueError(
      f'the split {split!r} of the task {task.name!r} is empty: check '
      f'what its source holds ({task.source})'
    )
  return found.examples, found.left_out


class _Gathered:
  """Examples so far."""

  def __init__(self, prompted: bool):
    self.examples: list[tasks.Example] = []
    self.left_out = LeftOut()
    self.first = ''
    self._prompted = prompted
    self._places: dict[str, str] = {}

  def take(self, example: tasks.Example, place: str) -> None:
    """Adds an example, or leaves it out where it is bad."""
    try:
      _check(example, self._prompted)
      if example.id in self._places:
        raise BadExample(
          'an id that an earlier example has',
          f'{example.id!r}, as {self._places[example.id]} has',
        )
    except BadExample as fault:
      self.leave_out(fault, place)
    else:
      self._places[example.id] = place
      self.examples.append(example)

  def leave_out(self, fault: BadExample, place: str) -> None:
    """Counts a bad row or example."""
    self.first = self.first or f'{place}: {fault}'
    self.left_out.add(fault.reason, place)

  def check_labels(self) -> None:
    """Leaves out what has no response, where others have one."""
    for field in _LABELS:
      missing = [getattr(e, field) is None for e in self.examples]
      if not any(missing) or all(missing):
        continue
      fault = BadExample(
        f'no {field!r}, which others have', 'label all examples, or none'
      )
      for example, lacks in zip(self.examples, missing):
        if lacks:
          self.leave_out(fault, self._places[example.id])
      self.examples = [
        e for e, lacks in zip(self.examples, missing) if not lacks
      ]

  def complaint(self) -> str:
    """What is wrong and what helps."""
    more = ''
    if len(self.left_out) > 1:
      more = f' ({len(self.left_out)} bad examples in all: {self.left_out})'
    return (
      f"{self.first}{more}. Fix the data, or set task.on_bad_example='skip' "
      'to leave out and count what is bad'
    )


def _check(example: tasks.Example, prompted: bool) -> None:
  """Raises BadExample unless all of an example's parts are text."""
  faults.as_text(example.id, 'the id', empty=True)
  faults.as_text(example.inputs, 'the prompt', empty=not prompted)
  for name in _LABELS:
    if (response := getattr(example, name)) is not None:
      faults.as_text(response, f'the response ({name})')
  for reference in example.references:
    faults.as_text(reference, 'the references')
