"""Tables and samples say what the results hold."""

import dataclasses

import numpy as np
import pytest

from kdjax.evaluation import loop, report, text

REFERENCES = [('a b c',), ('d e', 'd f'), ('g',)]


def _result(predictions, **described):
  return loop.score_texts(
    predictions,
    REFERENCES,
    ('rouge1', 'ter'),
    inputs=['say a b c', 'say d', 'say ' + 'g ' * 300],
    resamples=50,
    **described,
  )


def _results():
  return {
    'teacher': _result(
      ['a b c', 'd f', 'g'],
      tokens={'student': [np.arange(3), np.arange(2), np.arange(3)]},
      ended=np.array([True, True, False]),
    ),
    'before': _result(['a', 'e', 'h']),
    'after': _result(['a b', 'd e', 'h']),
  }


def _cells(table):
  return {
    cells[0]: cells[1:]
    for cells in (
      [cell.strip() for cell in line.strip('|').split('|')]
      for line in table.splitlines()
      if line.startswith('|')
    )
  }


def test_table_has_a_column_a_system_and_the_paired_difference():
  results = _results()
  table = report.table(results, compare=('before', 'after'))
  rows = _cells(table)
  assert rows[''] == ['teacher', 'before', 'after', 'after - before']
  assert rows['rouge1'][0] == '100.00 [100.00, 100.00]'
  value, low, high = results['before'].metrics['rouge1']
  assert rows['rouge1'][1] == f'{value:.2f} [{low:.2f}, {high:.2f}]'
  gain = loop.difference(results['before'], results['after'])['rouge1']
  assert rows['rouge1'][3] == (
    f'+{gain.value:.2f} [{gain.low:+.2f}, {gain.high:+.2f}]'
  )
  assert 'ter (less is better)' in rows
  assert rows['tokens'][:2] == ['2.7', '-']
  assert rows['ended'][:2] == ['66.7%', '-']
  assert rows['examples'][:3] == ['3', '3', '3']


def test_table_is_aligned_markdown():
  table, _ = report.table(_results()).split('\n\n')
  lines = table.splitlines()
  assert len({len(line) for line in lines}) == 1
  assert set(lines[1]) == {'|', '-'}
  assert all(line.count('|') == 5 for line in lines)


def test_conventions_stand_below_the_metrics_they_hold_for():
  names = ('rouge1', 'ter', 'rougeL')
  result = loop.score_texts(['a'] * 3, REFERENCES, names, resamples=5)
  _, notes = report.table({'student': result}).split('\n\n')
  assert notes.splitlines() == [
    f'- rouge1, rougeL: {text.CONVENTIONS["rouge1"]}.',
    f'- ter: {text.CONVENTIONS["ter"]}.',
  ]
  plain = dataclasses.replace(result, metrics={'forward_kl': (1.0, 0.5, 2.0)})
  assert '\n\n' not in report.table({'student': plain})


def test_a_metric_that_a_system_lacks_is_a_dash():
  results = _results()
  results['other'] = loop.score_texts(['a'] * 3, REFERENCES, ('bleu',))
  rows = _cells(report.table(results))
  assert rows['bleu'][:3] == ['-', '-', '-']
  assert rows['rouge1'][3] == '-'


def test_samples_stand_side_by_side():
  shown = report.samples(_results(), count=2)
  assert shown.split('\n\n')[1].splitlines() == [
    ' prompt: say d',
    'teacher: d f',
    ' before: e',
    '  after: d e',
    '   gold: d e / d f',
  ]
  long = report.samples(_results(), count=9, prompt_width=50)
  assert len(long.split('\n\n')) == 3
  assert ' ...' in long
  assert max(len(line) for line in long.splitlines()) <= 50 + len('teacher: ')


@pytest.mark.parametrize(
  'name, lower',
  [('ter', True), ('rouge1', False), ('forward_kl_gold', True)],
)
def test_direction_of_better(name, lower):
  assert report.lower_is_better(name) == lower


def test_comparing_an_absent_system_names_the_present():
  with pytest.raises(ValueError, match=r"'x'.*'teacher', 'before', 'after'"):
    report.table(_results(), compare=('before', 'x'))
