"""What every system said to each example, with its divergence at each token."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax import files
from kdjax.evaluation import loop


def write_examples(
  path: str | os.PathLike,
  results: Mapping[str, loop.Result],
  pieces: Callable[[Sequence[int]], list[str]],
  *,
  browse: int = 100,
) -> None:
  """Writes one JSON object per line, one per example.

  'id', 'input' and 'references' say which one it is, 'responses' by system:
  'text', 'length' in tokens, whether it 'ended' by itself, and 'scores' by
  metric; 'gold_length' counts the tokens of the gold response, where it was
  read. Of the first examples also 'tokens' and, for a student beside a
  teacher, divergences by name, a value a token: of its own response and, under
  'gold', of the gold one, whose tokens are 'gold_tokens'. Systems that the file
  has of the same examples already stay there.

  Args:
    path: of the file.
    results: by the system's name, all on the same examples.
    pieces: splits token ids into the texts that each adds.
    browse: of how many examples tokens are written.
  """
  path = pathlib.Path(path)
  first = next(iter(results.values()))
  scores = {name: _scores(result) for name, result in results.items()}
  lines = []
  for i in range(first.count):
    line = {
      'id': int(first.example_id[i]),
      'input': first.inputs[i],
      'references': list(first.references[i]),
      'responses': {
        name: _response(result, i, scores[name])
        for name, result in results.items()
      },
    }
    gold = [x.tokens['gold'] for x in results.values() if 'gold' in x.tokens]
    if gold:
      line['gold_length'] = len(gold[0][i])
    if i < browse:
      _add_tokens(line, results, i, pieces)
    lines.append(line)
  _keep_others(path, lines)
  with files.whole(path) as file:
    for line in lines:
      # In ASCII: some of Unicode's characters end a line, too.
      file.write(json.dumps(line, allow_nan=False).encode() + b'\n')


def _scores(result: loop.Result) -> dict[str, np.ndarray]:
  return {name: each.per_example for name, each in result.scores.items()}


def _response(
  result: loop.Result, i: int, scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  found = {
    'text': result.predictions[i],
    'scores': {name: _number(values[i]) for name, values in scores.items()},
  }
  if 'student' in result.tokens:
    found['length'] = len(result.tokens['student'][i])
    found['ended'] = bool(result.ended[i])
  return found


def _add_tokens(
  line: dict[str, Any],
  results: Mapping[str, loop.Result],
  i: int,
  pieces: Callable[[Sequence[int]], list[str]],
) -> None:
  for name, result in results.items():
    response = line['responses'][name]
    if 'student' in result.tokens:
      response['tokens'] = pieces(result.tokens['student'][i].tolist())
    if 'gold' in result.tokens:
      line['gold_tokens'] = pieces(result.tokens['gold'][i].tolist())
    for key, values in result.divergences.items():
      divergence, _, source = key.rpartition('_')
      home = response.setdefault('gold', {}) if source == 'gold' else response
      home[divergence] = [_number(value) for value in values[i]]


def _number(value: float) -> float | None:
  """Four digits; what JSON has no number for is null."""
  value = float(value)
  return round(value, 4) if math.isfinite(value) else None


def _keep_others(path: pathlib.Path, lines: Sequence[dict[str, Any]]) -> None:
  """Adds the systems that a file holds, if it is of the same examples."""
  if not path.exists():
    return
  text = path.read_text(encoding='utf-8')
  before = [json.loads(line) for line in text.split('\n') if line]
  same = lambda line: (line['id'], line['input'], line['references'])
  if [same(line) for line in before] != [same(line) for line in lines]:
    return
  for old, line in zip(before, lines):
    line['responses'] = {**old['responses'], **line['responses']}
