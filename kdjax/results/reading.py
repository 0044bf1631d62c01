"""JSON files, read strictly: what is wrong is said with its file and line."""

import json
import math
import pathlib
from typing import Any


def read(path: pathlib.Path) -> Any:
  """Returns what a JSON file holds.

  Raises:
    ValueError: it isn't JSON; the message names the file and the line.
  """
  text = path.read_text(encoding='utf-8')
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}, line {error.lineno}: not JSON ({error.msg}). Remove the file '
      'and run what writes it again.'
    ) from error


def read_scores(path: pathlib.Path) -> dict[str, dict[str, float]]:
  """Returns a results.json: numbers by system and metric; null is NaN.

  Raises:
    ValueError: it isn't that.
  """
  found = read(path)
  if not _is_mapping_of(found, dict):
    raise ValueError(
      f'{path}: expected an object of numbers for each system, such as '
      f'{{"student after": {{"rouge2": 12.3}}}}, got {_shown(found)}.'
    )
  for system, scores in found.items():
    for name, value in scores.items():
      if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError(
          f'{path}: {name} of {system!r} is {_shown(value)}; expected a number.'
        )
      scores[name] = math.nan if value is None else float(value)
  return found


def read_lines(
  path: pathlib.Path, *, growing: bool = False
) -> list[dict[str, Any]]:
  """Returns the objects of a file that holds one a line.

  Args:
    path: of the file.
    growing: whether a run may be writing to it: a last line that hasn't ended
      is then left out.

  Raises:
    ValueError: a line isn't a JSON object; the message names it.
  """
  lines = path.read_text(encoding='utf-8').split('\n')
  unfinished = lines.pop()
  if unfinished and not growing:
    lines.append(unfinished)
  found = []
  for number, line in enumerate(lines, 1):
    try:
      entry = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{path}, line {number}: not JSON ({error.msg} at column '
        f'{error.colno}). Remove the line, or the file.'
      ) from error
    if not isinstance(entry, dict):
      raise ValueError(
        f'{path}, line {number}: expected a JSON object, got {_shown(entry)}.'
      )
    found.append(entry)
  return found


def _is_mapping_of(value: Any, kind: type) -> bool:
  return isinstance(value, dict) and all(
    isinstance(each, kind) for each in value.values()
  )


def _shown(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 60 else text[:57] + '...'
