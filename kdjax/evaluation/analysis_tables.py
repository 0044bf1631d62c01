"""Analyses as tables, each with the convention that it follows."""

from collections.abc import Mapping
from typing import Any

from kdjax.evaluation import bootstrap, report
from kdjax.evaluation.analyses import ANALYSES


def analysis_tables(found: Mapping[str, dict[str, Any]]) -> str:
  """Returns what `run` found as Markdown, each with its convention."""
  parts = [
    f'{name}: {ANALYSES[name].convention}\n\n{_TABLES[name](each)}'
    for name, each in found.items()
  ]
  return '\n\n'.join(parts)


def _exposure_table(found: dict[str, Any]) -> str:
  of = found['student']
  count = len(of['length'])
  # Lengths 1, 2, 4, ... and the last.
  shown = {2**i for i in range(count.bit_length())} | {count}
  rows = [['length', 'ExError%', 'AccErr', 'D_s', 'D_t', 'samples alive']]
  for i in (length - 1 for length in sorted(shown)):
    ends = (of[k][i] for k in _EX_ERROR)
    rows.append(
      [
        str(of['length'][i]),
        _cell(*ends),
        _digits(of['accumulated_error'][i]),
        _digits(of['student_divergence'][i]),
        _digits(of['teacher_divergence'][i]),
        f'{of["alive"][i]:.0%}',
      ]
    )
  return report.markdown(rows)


_EX_ERROR = ('ex_error', 'excess_error_low', 'excess_error_high')


def _coverage_table(found: dict[str, Any]) -> str:
  labels = {
    'likelihood': 'R_llh (less is better)',
    'coverage': 'R_cvg (less is better)',
    'teacher_dist': 'TeacherDist (%)',
  }
  rows = [['', 'student']]
  rows += [[label, _score(found['student'], k)] for k, label in labels.items()]
  return report.markdown(rows)


def _temperatures_table(found: dict[str, Any]) -> str:
  rows = found['student']
  names = ['temperature', *_names(rows[0])]
  cells = [
    [f'{row["temperature"]:g}', *(_score(row, k) for k in names[1:])]
    for row in rows
  ]
  return report.markdown([names, *cells])


def _buckets_table(found: dict[str, Any]) -> str:
  names = _names(next(iter(found.values()))[0])
  table = [['words', 'system', 'examples', *names]]
  for rows in zip(*found.values()):
    for system, row in zip(found, rows):
      high = '+' if row['high'] is None else f'-{row["high"]}'
      scores = (_score(row, k) if k in row else '-' for k in names)
      table.append(
        [f'{row["low"]}{high}', system, str(row['examples']), *scores]
      )
  return report.markdown(table)


def _answers_table(found: dict[str, Any]) -> str:
  of = found['student']
  k = of['samples']
  rows = [
    ['', 'student'],
    [f'pass@1 (of {k} samples)', _score(of, 'pass@1')],
    [f'cons@{k}', _score(of, 'cons@k')],
    ['temperature, top-p', f'{of["temperature"]:g}, {of["top_p"]:g}'],
    ['answer', of['answer']],
  ]
  return report.markdown(rows)


_TABLES = {
  'exposure_bias': _exposure_table,
  'coverage': _coverage_table,
  'temperatures': _temperatures_table,
  'length_buckets': _buckets_table,
  'answers': _answers_table,
}


def _names(row: Mapping[str, Any]) -> list[str]:
  """Returns the scores that a row has the intervals of."""
  return [name for name in row if f'{name}_low' in row]


def _score(row: Mapping[str, Any], name: str) -> str:
  return _cell(*(row[k] for k in (name, f'{name}_low', f'{name}_high')))


def _cell(value: float | None, low: float | None, high: float | None) -> str:
  if value is None or low is None or high is None:
    return '-'
  return report.cell(bootstrap.Interval(value, low, high))


def _digits(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'
