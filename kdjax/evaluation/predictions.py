"""Texts to score that come from outside kdjax."""

import json
import os
import pathlib
from collections.abc import Sequence


def read(path: str | os.PathLike, ids: Sequence[str]) -> tuple[str, ...]:
  """Returns the text for each example, from a file.

  Args:
    path: one response per line; or, if it ends in '.jsonl', one object per line
      whose 'text' is the response, and whose 'id', if it has one, the name of
      its example. Without ids, lines are in the order of the examples.
    ids: the names of the examples.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line isn't of that form, or lines and examples don't match.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'eval.texts={str(path)!r}: there is no such file')
  # Not splitlines(), to which some characters within a text are line ends.
  lines = path.read_text(encoding='utf-8').split('\n')
  lines = [line.removesuffix('\r') for line in lines]
  if not lines[-1]:
    lines.pop()
  if path.suffix != '.jsonl':
    _check_count(path, len(lines), ids)
    return tuple(lines)
  rows = [_row(path, i, line) for i, line in enumerate(lines, 1)]
  named = [row for row in rows if 'id' in row]
  if not named:
    _check_count(path, len(rows), ids)
    return tuple(row['text'] for row in rows)
  if len(named) < len(rows):
    raise ValueError(
      f"{path}: {len(named)} of {len(rows)} lines have an 'id'; give all of "
      'them one, or none, if they are in the order of the examples'
    )
  return _matched(path, rows, ids)


def _row(path: pathlib.Path, number: int, line: str) -> dict[str, str]:
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path}, line {number} is not JSON: {error}') from None
  if not isinstance(row, dict) or not isinstance(row.get('text'), str):
    raise ValueError(
      f'{path}, line {number} is {line:.60}; expected an object with a string '
      "'text', and where it has an 'id', the name of its example there"
    )
  return row


def _check_count(path: pathlib.Path, count: int, ids: Sequence[str]) -> None:
  if count != len(ids):
    raise ValueError(
      f'{path} has {count} responses, and the split {len(ids)} examples; '
      'expected one per line, in order. Where they answer only the first '
      f'examples, set eval.test_examples={count}'
    )


def _matched(
  path: pathlib.Path, rows: Sequence[dict[str, str]], ids: Sequence[str]
) -> tuple[str, ...]:
  texts: dict[str, str] = {}
  for number, row in enumerate(rows, 1):
    name = str(row['id'])
    if name in texts:
      raise ValueError(f'{path}, line {number}: the id {name!r} comes twice')
    texts[name] = row['text']
  missing = [name for name in ids if name not in texts]
  if missing:
    raise ValueError(
      f'{path} has no response to {len(missing)} of {len(ids)} examples, such '
      f'as {missing[:3]}; its ids are like {list(texts)[:3]}'
    )
  return tuple(texts[name] for name in ids)
