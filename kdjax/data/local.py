"""Tasks of local files."""

from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.data import faults, sources
from kdjax.data.faults import BadExample
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

  A number in `target`, `rejected` or `id` stands for its digits; elsewhere, and
  in place of text in general, numbers make an example bad, as do nulls, empty
  texts and NUL characters. For texts without prompts see `text`.

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
    prompt = f'{prefix}{faults.text(row, input)}'
    gold = _texts(row, target) if target else ()
    name = faults.text(row, id, numbers=True) if id else str(index)
    first = gold[0] if gold else None
    worse = faults.text(row, rejected, numbers=True) if rejected else None
    yield Example(name, prompt, first, gold, worse)

  columns = {'data': target, 'rejected': rejected}
  return Task(
    name='file',
    source=sources.Files(path),
    format=examples,
    metrics=tuple(metrics),
    max_prompt_tokens=512,
    max_response_tokens=128,
    gives=tuple(source for source, column in columns.items() if column),
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
    yield plain(str(index), faults.text(row, column))

  return Task(
    name='text',
    source=sources.Files(path),
    format=examples,
    metrics=('distinct1', 'distinct2'),
    prompted=False,
    # Special ids alone, of which no family writes as many.
    max_prompt_tokens=4,
    max_response_tokens=256,
  )


def plain(name: str, content: str) -> Example:
  """The example of a language model: nothing asks for the text."""
  return Example(name, '', content, (content,))


def _texts(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
  """Returns the text in a column, or the texts of a list in it."""
  value = row.get(column)
  if not isinstance(value, list | tuple):
    return (faults.text(row, column, numbers=True),)
  if not value:
    raise BadExample(
      f'an empty list in the column {column!r}', 'label all, or name no target'
    )
  return faults.texts(row, column, numbers=True)
