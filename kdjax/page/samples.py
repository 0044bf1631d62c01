"""Examples with everybody's responses, small enough for a page."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax.page.numbers import finite

# The most examples of a page, and the characters that they may take together:
# a report of any sweep stays below 2 MB. A few are always shown.
EXAMPLES = 200
BUDGET = 1_200_000
_AT_LEAST = 5

_KINDS = ('forward_kl', 'reverse_kl')


def collect(
  sources: Mapping[str, tuple[pathlib.Path, str]],
  budget: int = BUDGET,
) -> dict[str, Any] | None:
  """Aligns the responses of several systems by the example's id.

  Args:
    sources: the page's name of a system to the workdir that holds its
      examples.jsonl, and the system's name in there. The first one that has
      the file says which examples there are, and their order.
    budget: characters of JSON.

  Returns:
    'total' examples of the set, 'scores' the names of the metrics an example,
    'examples' that are shown, and 'responses' of each system in their order
    (None: it has none). Divergences are in thousandths of a nat. None if no
    system has a file.
  """
  files = {name: folder for name, (folder, _) in sources.items()}
  files = {k: v for k, v in files.items() if (v / 'examples.jsonl').exists()}
  if not files:
    return None
  cache = {}
  for folder in files.values():
    if folder not in cache:
      cache[folder] = {each['id']: each for each in _head(folder)}
  first = next(iter(files.values()))
  names, kept, size = {}, [], 0
  for key, example in cache[first].items():
    row = {}
    for name, folder in files.items():
      said = cache[folder].get(key, {}).get('responses', {})
      row[name] = said.get(sources[name][1])
      names |= dict.fromkeys(_shown((row[name] or {}).get('scores', {})))
    kept.append((_example(example), row))
  examples, responses = [], {name: [] for name in files}
  for example, row in kept:
    small = {name: _response(each, names) for name, each in row.items()}
    size += len(dumps([example, small]))
    if size > budget and len(examples) >= _AT_LEAST:
      break
    examples.append(example)
    for name, each in small.items():
      responses[name].append(each)
  return {
    'total': _count(first),
    'scores': list(names),
    'examples': examples,
    'responses': responses,
  }


def _shown(scores: Mapping[str, float]) -> list[str]:
  """Metrics of the text: divergences are shown token by token."""
  return [name for name in scores if not name.startswith(_KINDS)]


def dumps(value: Any) -> str:
  """JSON without spaces; what isn't ASCII stays as it is."""
  return json.dumps(
    value, ensure_ascii=False, allow_nan=False, separators=(',', ':')
  )


def _lines(folder: pathlib.Path) -> Iterator[str]:
  with (folder / 'examples.jsonl').open(encoding='utf-8') as file:
    yield from (line for line in file if line.strip())


def _head(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  for _, line in zip(range(EXAMPLES), _lines(folder)):
    yield json.loads(line)


def _count(folder: pathlib.Path) -> int:
  return sum(1 for _ in _lines(folder))


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
  return {
    'id': example['id'],
    'input': example['input'],
    'references': example['references'],
    'tokens': example.get('gold_tokens'),
  }


def _response(each: Mapping[str, Any] | None, names) -> dict[str, Any] | None:
  if each is None:
    return None
  scores = each.get('scores', {})
  found = {
    'text': each['text'],
    'length': each.get('length'),
    'ended': each.get('ended', True),
    'scores': [_hundredths(scores.get(name)) for name in names],
  }
  if 'tokens' in each:
    found['tokens'] = each['tokens']
  found |= _divergences(each)
  if 'gold' in each:
    found['gold'] = _divergences(each['gold'])
  return found


def _divergences(each: Mapping[str, Any]) -> dict[str, list[int | None]]:
  return {
    kind: [_thousandths(value) for value in each[kind]]
    for kind in _KINDS
    if kind in each
  }


def _thousandths(value: float | None) -> int | None:
  value = finite(value)
  return None if value is None else round(1000 * value)


def _hundredths(value: float | None) -> float | None:
  value = finite(value)
  return None if value is None else round(value, 2)
