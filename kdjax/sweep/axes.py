"""Axes of a sweep, and the settings that they span."""

import ast
import dataclasses
import inspect
import itertools
import pathlib
import re
import runpy
from collections.abc import Iterable

Value = bool | int | float | str
Values = dict[str, Value]


@dataclasses.dataclass(frozen=True)
class Axis:
  """A name and the values that it takes."""

  name: str
  values: tuple[Value, ...]

  @classmethod
  def parse(cls, text: str) -> 'Axis':
    """Reads an axis as a command line says it.

    >>> Axis.parse('beta=0.1,0.5')
    Axis(name='beta', values=(0.1, 0.5))
    >>> Axis.parse('optimizer.name=adamw,sgd').values
    ('adamw', 'sgd')

    Raises:
      ValueError: there is no name, no value, or one value twice.
    """
    name, given, listed = text.partition('=')
    values = tuple(value(each) for each in _split(listed)) if listed else ()
    if not (given and re.fullmatch(r'[A-Za-z_][\w.]*', name) and values):
      raise ValueError(
        f'--axis={text}: expected a name and its values, such as beta=0.1,0.5'
      )
    if len(set(map(repr, values))) < len(values):
      raise ValueError(f'--axis={text}: a value appears twice')
    return cls(name, values)


def value(text: str) -> Value:
  """Reads a number, true, false, or else a string.

  >>> value('1e-3'), value('true'), value('sgd')
  (0.001, True, 'sgd')
  """
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  try:
    found = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
  return found if isinstance(found, int | float) else text


def _split(text: str) -> list[str]:
  """Splits at commas, but not within brackets."""
  return re.findall(r'(?:[^,(\[{]|\([^)]*\)|\[[^\]]*\]|\{[^}]*\})+', text)


def product(settings: Iterable[Values], axes: Iterable[Axis]) -> list[Values]:
  """Returns every setting with every combination of the axes' values.

  >>> product([{'method': 'gkd'}], [Axis('beta', (0.1, 0.5))])
  [{'method': 'gkd', 'beta': 0.1}, {'method': 'gkd', 'beta': 0.5}]

  Raises:
    ValueError: an axis is named twice.
  """
  axes, settings = list(axes), list(settings)
  names = [axis.name for axis in axes]
  twice = {name for name in names if names.count(name) > 1}
  twice |= {name for each in settings for name in each if name in names}
  if twice:
    raise ValueError(f'axes {sorted(twice)} are given twice')
  spans = [[(axis.name, each) for each in axis.values] for axis in axes]
  return [
    {**setting, **dict(combination)}
    for setting in settings
    for combination in itertools.product(*spans)
  ]


def of_config(config: str) -> list[Values]:
  """Returns the settings that a config file's `sweep(add)` adds.

  `add(beta=0.1)` adds one, `add(**{'optimizer.learning_rate': 1e-3})` names a
  field in a section; `sweep(add, arg)` is also told what follows the colon of
  `--config=FILE:ARG`. One setting without values where a file has no `sweep`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: `sweep` adds nothing.
  """
  path, _, arg = config.partition(':')
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'--config={config}: there is no file {path}')
  sweep = runpy.run_path(path).get('sweep')
  if sweep is None:
    return [{}]
  found: list[Values] = []
  given = [arg] if len(inspect.signature(sweep).parameters) > 1 else []
  sweep(lambda **values: found.append(values), *given)
  if not found:
    raise ValueError(f'sweep() of {path} adds no setting')
  return found
