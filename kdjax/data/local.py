"""Tasks of local files."""

from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.data import sources
from kdjax.data.tasks import Example, Task, register


@register
def file(
  path: str,
  input: str,
  target: str | None = None,
  prefix: str = '',
  id: str | None = None,
  metrics: tuple[str, ...] = ('rouge1', 'rouge2', 'rougeL', 'exact_match'),
  rejected: str | None = None,
) -> Task:
  """A local jsonl, csv or parquet file.

  Args:
    path: the file; with '{split}' in it, one file a split.
    input: the column that holds the prompts.
    target: the column that holds the responses, or None if unlabelled. Where
      its values are lists, the first is the response and all are references.
    prefix: text before every prompt.
    id: the column that names the examples, else their numbers do.
    metrics: by which it is judged.
    rejected: the column that holds responses to which `target` is preferred.
  """

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    _check_columns(path, row, index, (input, target, id, rejected))
    gold = () if target is None else row[target]
    gold = (gold,) if isinstance(gold, (str, int, float)) else gold
    gold = tuple(str(text) for text in gold)
    name = str(row[id] if id else index)
    first = gold[0] if gold else None
    worse = str(row[rejected]) if rejected else None
    yield Example(name, f'{prefix}{row[input]}', first, gold, worse)

  return Task(
    name='file',
    source=sources.Files(path),
    format=examples,
    metrics=tuple(metrics),
    max_prompt_tokens=512,
    max_response_tokens=128,
  )


@register
def text(path: str, column: str = 'text') -> Task:
  """Plain text for language modelling: empty prompts, the text as response.

  Args:
    path: a jsonl, csv or parquet file, or a .txt file, of which every line that
      isn't blank is an example; with '{split}' in it, one file a split.
    column: the column that holds the text; that of .txt files is 'text'.
  """

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    _check_columns(path, row, index, (column,))
    yield plain(str(index), str(row[column]))

  return Task(
    name='text',
    source=sources.Files(path),
    format=examples,
    metrics=('distinct1', 'distinct2'),
    # Special ids alone, of which no family writes as many.
    max_prompt_tokens=4,
    max_response_tokens=256,
  )


def plain(name: str, content: str) -> Example:
  """The example of a language model: nothing asks for the text."""
  return Example(name, '', content, (content,))


def _check_columns(
  path: str,
  row: Mapping[str, Any],
  index: int,
  columns: tuple[str | None, ...],
) -> None:
  missing = [c for c in columns if c and row.get(c) is None]
  if missing:
    raise ValueError(
      f'row {index} of {path} has nothing in the column {missing[0]!r}; '
      f'its columns are {", ".join(map(str, row))}'
    )
