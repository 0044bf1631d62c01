"""What a value may be, and how one that is wrong is shown."""

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

# What the devices hold: int32, and the numbers of float32 that are no less
# exact for being small, which are flushed to zero.
MAX_INT = 2**31 - 1
_FLOATS = 1.1754944e-38, 3.4028235e38

_LONGEST = 200


def shown(value: Any) -> str:
  """Returns a value as Python writes it, on one line that isn't too long.

  >>> shown('a'), shown(2.5), shown('a' * 500)[-3:]
  ("'a'", '2.5', '...')
  """
  try:
    text = ' '.join(repr(value).split())
  except Exception:  # of whoever wrote that __repr__, or too long a number
    text = f'<{type(value).__name__}>'
  return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'


def line(text: str) -> str:
  """Returns a text on one line: what can't be printed is escaped.

  >>> line('a\\nb')
  'a\\\\nb'
  """
  return ''.join(
    x if x.isprintable() else x.encode('unicode_escape').decode() for x in text
  )


def number_problem(value: float) -> str | None:
  """Returns why neither int32 nor float32 holds a number; None if it does."""
  if isinstance(value, int):
    if -MAX_INT <= value <= MAX_INT:
      return None
    return f'must be from -{MAX_INT} to {MAX_INT}'
  least, most = _FLOATS
  if value == 0 or least <= abs(value) <= most:
    return None
  if not math.isfinite(value):
    return 'expected a finite number'
  return f'must be 0, or from {least:.2g} to {most:.2g} in size'


def problem(value: Any, kind: Any) -> str | None:
  """Returns why a value isn't of an annotation's kind; None if it is."""
  if not _fits(value, kind):
    return f'expected {_named(kind)}'
  numbers = value if isinstance(value, (tuple, list)) else (value,)
  wrong = [number_problem(x) for x in numbers if isinstance(x, (int, float))]
  return next(filter(None, wrong), None)


def problems(
  function: Callable[..., Any],
  args: Mapping[str, Any],
  internal: Collection[str] = (),
) -> list[str]:
  """Returns what is wrong with keyword arguments, by a function's annotations.

  Each of them by itself: what is missing, unknown, or of another type.

  Args:
    function: whose arguments they are.
    args: by name.
    internal: parameters that aren't for whoever gives `args`.
  """
  parameters = inspect.signature(function).parameters.values()
  known = {
    each.name: each
    for each in parameters
    if each.kind != each.VAR_KEYWORD and each.name not in internal
  }
  found = []
  unknown = sorted(set(args) - set(known))
  if unknown and not any(each.kind == each.VAR_KEYWORD for each in parameters):
    found.append(f'it takes no {unknown}; it takes {[*known]}')
  for name, each in known.items():
    if name not in args:
      found += [f'{name} is missing'] if each.default is each.empty else []
    elif wrong := problem(args[name], each.annotation):
      found.append(f'{name}={shown(args[name])}: {wrong}')
  return found


def plain(value: Any, name: str, found: list[str]) -> Any:
  """Returns what JSON can hold of a value, noting what it can't.

  Args:
    value: numbers, texts, lists and mappings of these by name.
    name: what to call it.
    found: takes the problems.
  """
  if isinstance(value, Mapping):
    kept = {}
    for key, each in value.items():
      if isinstance(key, str):
        kept[key] = plain(each, f'{name}.{key}', found)
      else:
        found.append(f'{name}[{shown(key)}]: keys must be str')
    return {k: v for k, v in kept.items() if v is not _NOTHING}
  if isinstance(value, (tuple, list)):
    items = (plain(x, f'{name}[{i}]', found) for i, x in enumerate(value))
    return tuple(x for x in items if x is not _NOTHING)
  if value is None or isinstance(value, (bool, str)):
    return value
  if not isinstance(value, (int, float)):
    found.append(
      f'{name}={shown(value)}: expected a number, a text, or lists or mappings '
      'of these'
    )
  elif not abs(value) < math.inf or abs(value) >= 2**63:
    found.append(f'{name}={shown(value)}: expected a number below 2**63')
  else:
    return value
  return _NOTHING


_NOTHING = object()


def _fits(value: Any, kind: Any) -> bool:
  if kind in (Any, inspect.Parameter.empty):
    return True
  origin, items = typing.get_origin(kind) or kind, typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, each) for each in items)
  if origin in (tuple, collections.abc.Sequence) and items:
    held = (tuple, list) if origin is tuple else (tuple, list, str)
    return isinstance(value, held) and all(_fits(x, items[0]) for x in value)
  if origin in (int, float):
    allowed = (int, float) if origin is float else int
    return isinstance(value, allowed) and not isinstance(value, bool)
  return isinstance(value, origin)


def _named(kind: Any) -> str:
  """Returns what an annotation is called."""
  origin, items = typing.get_origin(kind) or kind, typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(map(_named, items))
  if origin in (tuple, collections.abc.Sequence) and items:
    return f'a tuple of {_named(items[0])}'
  return 'None' if kind is type(None) else origin.__name__
