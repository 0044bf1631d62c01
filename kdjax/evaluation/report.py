"""Results as text: a table of systems, and samples side by side."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from kdjax.evaluation import bootstrap, distribution, loop, text


def cell(interval: bootstrap.Interval, *, signed: bool = False) -> str:
  """Returns a score and its interval in brackets."""
  # Percentages read best with two digits, nats below one need a third.
  digits = 2 if max(abs(x) for x in interval) >= 1.0 else 3
  sign = '+' if signed else ''
  value, low, high = (f'{x:{sign}.{digits}f}' for x in interval)
  return f'{value} [{low}, {high}]'


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table that is aligned in plain text too."""
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  padded = [
    '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |'
    for row in rows
  ]
  rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
  return '\n'.join([padded[0], rule, *padded[1:]])


def table(
  results: Mapping[str, loop.Result],
  compare: tuple[str, str] | None = None,
) -> str:
  """Returns a Markdown table: one row per metric, one column per system.

  Cells hold the score and its bootstrap 95% interval. Below stand the
  conventions of the metrics, since numbers of others don't compare.

  Args:
    results: by the system's name, in the order of the columns.
    compare: two of the names (before, after): adds a column with the paired
      difference `after - before`.

  Raises:
    ValueError: for no results, or a name in `compare` that is not among them.
  """
  if not results or not set(compare or ()) <= set(results):
    raise ValueError(
      f'compare is {compare} and the results are {list(results)}; expected '
      'at least one result, and two of their names to compare.'
    )
  names = dict.fromkeys(n for r in results.values() for n in r.metrics)
  gains = {}
  header = ['', *results]
  if compare:
    before, after = compare
    gains = loop.difference(results[before], results[after])
    header.append(f'{after} - {before}')
  rows = [header]
  for name in names:
    row = [heading(name)]
    row += [
      cell(r.metrics[name]) if name in r.metrics else '-'
      for r in results.values()
    ]
    if compare:
      row.append(cell(gains[name], signed=True) if name in gains else '-')
    rows.append(row)
  pad = [''] if compare else []
  for label, form in (
    ('tokens', '{0.mean_length:.1f}'),
    ('ended', '{0.eos_fraction:.1%}'),
    ('examples', '{0.count}'),
  ):
    cells = [form.format(r).replace('nan%', '-') for r in results.values()]
    rows.append([label, *(c.replace('nan', '-') for c in cells), *pad])
  return '\n'.join([markdown(rows), *_footnotes(names)])


def _footnotes(names: Iterable[str]) -> list[str]:
  """A Markdown list: a convention each, with the metrics it holds for."""
  found = {}
  for name in names:
    if name in text.CONVENTIONS:
      found.setdefault(text.CONVENTIONS[name], []).append(name)
  notes = [f'- {", ".join(own)}: {said}.' for said, own in found.items()]
  return ['', *notes] if notes else []


def heading(name: str) -> str:
  """Returns a metric's name, marked where less is better."""
  return f'{name} (less is better)' if lower_is_better(name) else name


def lower_is_better(name: str) -> bool:
  """Whether a smaller score is a better one; true of every divergence."""
  divergence = name.rpartition('_')[0]
  return name in text.LOWER_IS_BETTER or divergence in distribution.DIVERGENCES


def samples(
  results: Mapping[str, loop.Result],
  count: int = 3,
  *,
  prompt_width: int = 300,
) -> str:
  """Returns the first examples: prompt, every system's text and the gold.

  Args:
    results: by the system's name, all on the same examples.
    count: how many examples.
    prompt_width: characters of the prompt that are shown.
  """
  first = next(iter(results.values()))
  label = max(len(name) for name in (*results, 'prompt', 'gold'))
  blocks = []
  for i in range(min(count, first.count)):
    entries = {
      'prompt': textwrap.shorten(
        first.inputs[i], prompt_width, placeholder=' ...'
      ),
      **{name: result.predictions[i] for name, result in results.items()},
      'gold': ' / '.join(first.references[i]),
    }
    blocks.append(
      '\n'.join(f'{name:>{label}}: {said}' for name, said in entries.items())
    )
  return '\n\n'.join(blocks)
