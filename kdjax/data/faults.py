"""What makes an example bad, and what is told of the bad ones."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

# Of each reason, so many places are told.
_SHOWN = 5


@functools.cache
def warn(message: str) -> None:
  """Says something once: a run loads its data several times."""
  logger.warning(message)


class BadExample(ValueError):
  """A row that gives no example.

  Attributes:
    reason: the kind of fault, the same words for all that share it.
    detail: what is known of this one besides.
  """

  def __init__(self, reason: str, detail: str = ''):
    super().__init__(f'{reason}; {detail}' if detail else reason)
    self.reason = reason
    self.detail = detail


@dataclasses.dataclass
class LeftOut:
  """What a split holds and gives no examples.

  Attributes:
    counts: how many, by reason.
    places: where the first few stand, by reason.
  """

  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  places: dict[str, list[str]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return sum(self.counts.values())

  def add(self, reason: str, place: str) -> None:
    """Counts one."""
    self.counts[reason] = self.counts.get(reason, 0) + 1
    places = self.places.setdefault(reason, [])
    if len(places) < _SHOWN:
      places.append(place)

  def __str__(self) -> str:
    """One line for people, the most frequent first.

    >>> left_out = LeftOut()
    >>> left_out.add('bad UTF-8', 'line 2')
    >>> left_out.add('bad UTF-8', 'line 7')
    >>> print(left_out)
    2 bad UTF-8 (line 2, line 7)
    """
    parts = []
    order = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
    for reason, count in order:
      places = self.places[reason]
      more = ', ...' * (len(places) < count)
      parts.append(f'{count} {reason} ({", ".join(places)}{more})')
    return ', '.join(parts)


def text(
  row: Mapping[str, Any],
  column: str,
  *,
  empty: bool = False,
  numbers: bool = False,
) -> str:
  """Returns the text in a column of a row.

  >>> text({'q': 'why', 'label': 3}, 'label', numbers=True)
  '3'

  Args:
    row: values by column.
    column: which of them.
    empty: whether there may be nothing but blanks.
    numbers: whether finite numbers stand for their digits, as labels do.

  Raises:
    BadExample: there is no such text.
  """
  value = _present(row, column)
  return as_text(value, f'the column {column!r}', empty, numbers)


def texts(
  row: Mapping[str, Any],
  column: str,
  *,
  empty: bool = False,
  numbers: bool = False,
) -> tuple[str, ...]:
  """Returns the texts of the list in a column of a row.

  >>> texts({'said': ['why', 'so']}, 'said')
  ('why', 'so')

  Args:
    row: values by column.
    column: which of them.
    empty: see `text`.
    numbers: see `text`.

  Raises:
    BadExample: there is no list, it is empty, or holds what isn't such a text.
  """
  where = f'the column {column!r}'
  found = as_list(_present(row, column), where)
  return tuple(as_text(each, where, empty, numbers) for each in found)


def _present(row: Mapping[str, Any], column: str) -> Any:
  """Returns what a row has in a column; raises BadExample if nothing."""
  value = row.get(column)
  if value is None:
    there = ', '.join(map(str, row)) or 'none'
    raise BadExample(
      f'nothing in the column {column!r}', f'its columns are {there}'
    )
  return value


def as_list(value: Any, where: str) -> Sequence[Any]:
  """Returns a value that should be a list.

  Text isn't one, though it can be iterated, too.

  Raises:
    BadExample: it is something else, or empty.
  """
  if not isinstance(value, list | tuple):
    raise BadExample(
      f'no list in {where}', f'but {_shown(value)}, of type {_kind(value)}'
    )
  if not value:
    raise BadExample(f'an empty list in {where}')
  return value


def as_text(
  value: Any, where: str, empty: bool = False, numbers: bool = False
) -> str:
  """Returns a value that should be text; see `text`.

  Raises:
    BadExample: it is something else, empty, or holds what isn't a character.
  """
  number = isinstance(value, int | float) and not isinstance(value, bool)
  # Integers are finite, those that no float can hold, too.
  finite = isinstance(value, int) or (number and math.isfinite(value))
  if number and numbers and finite:
    return str(value)
  if not isinstance(value, str):
    raise BadExample(
      f'no text in {where}', f'but {_shown(value)}, of type {_kind(value)}'
    )
  if not empty and not value.strip():
    raise BadExample(f'empty text in {where}')
  if '\0' in value:
    raise BadExample(f'a NUL character in {where}')
  if not value.isascii():
    try:
      value.encode('utf-8')
    except UnicodeEncodeError:
      # Half of a pair that stands for one character in UTF-16.
      raise BadExample(f'a lone surrogate in {where}') from None
  return value


def _kind(value: Any) -> str:
  return type(value).__name__


def _shown(value: Any) -> str:
  shown = repr(value)
  return shown if len(shown) <= 40 else f'{shown[:40]}...'


# What functions raise of values that they don't expect: OverflowError of
# numbers and times that are out of range.
_UNREADABLE = (
  LookupError,
  TypeError,
  ValueError,
  AttributeError,
  OverflowError,
)


def read_by(
  function: Callable[..., Any], row: Mapping[str, Any], *args: Any
) -> Any:
  """Returns function(row, *args).

  Raises:
    BadExample: the row could not be read, or the function cannot read it.
  """
  fault = getattr(row, 'fault', None)
  if fault is not None:
    raise fault
  try:
    return function(row, *args)
  except BadExample:
    raise
  except _UNREADABLE as error:
    there = ', '.join(map(str, row)) or 'none'
    raise BadExample(
      'not of the form that the task reads',
      f'{_kind(error)}: {error}; its columns are {there}',
    ) from error
