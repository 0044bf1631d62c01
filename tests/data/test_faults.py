"""Texts that are none are told apart by their kind."""

import pytest

from kdjax.data import faults
from kdjax.data.faults import BadExample


@pytest.mark.parametrize(
  'value, reason',
  [
    (None, "nothing in the column 'q'"),
    (7, "no text in the column 'q'"),
    (float('nan'), "no text in the column 'q'"),
    (True, "no text in the column 'q'"),
    (['a'], "no text in the column 'q'"),
    (b'a', "no text in the column 'q'"),
    (' \t\n', "empty text in the column 'q'"),
    ('a\0', "a NUL character in the column 'q'"),
    ('a\ud800', "a lone surrogate in the column 'q'"),
  ],
)
def test_what_is_no_text(value, reason):
  with pytest.raises(BadExample) as error:
    faults.text({'q': value}, 'q')
  assert error.value.reason == reason
  assert '\n' not in str(error.value)


def test_what_is():
  assert faults.text({'q': 'naïve 😀 '}, 'q') == 'naïve 😀 '
  assert faults.text({'q': ' '}, 'q', empty=True) == ' '
  # The last one is more than a float can hold.
  for number in (7, 2.5, -(10**400)):
    assert faults.text({'q': number}, 'q', numbers=True) == str(number)
  for number in (float('nan'), float('inf'), True):
    with pytest.raises(BadExample, match='no text'):
      faults.text({'q': number}, 'q', numbers=True)


@pytest.mark.parametrize(
  'value, reason',
  [
    (None, "nothing in the column 'q'"),
    ('Hey', "no list in the column 'q'"),
    ({'a': 1}, "no list in the column 'q'"),
    (7, "no list in the column 'q'"),
    ([], "an empty list in the column 'q'"),
    ([['a']], "no text in the column 'q'"),
    (['a', None], "no text in the column 'q'"),
    (['a', 7], "no text in the column 'q'"),
    (['a', ' '], "empty text in the column 'q'"),
  ],
)
def test_what_is_no_list_of_texts(value, reason):
  with pytest.raises(BadExample) as error:
    faults.texts({'q': value}, 'q')
  assert error.value.reason == reason


def test_lists_of_texts():
  assert faults.texts({'q': ['a', 'b']}, 'q') == ('a', 'b')
  assert faults.texts({'q': ('a', ' ')}, 'q', empty=True) == ('a', ' ')
  assert faults.texts({'q': ['a', 7]}, 'q', numbers=True) == ('a', '7')


def test_a_missing_column_lists_those_there_are():
  with pytest.raises(BadExample, match="'q'; its columns are a, b"):
    faults.text({'a': 1, 'b': 2}, 'q')


def test_a_function_that_cannot_read_a_row_makes_it_bad():
  assert faults.read_by(lambda row, i: row['a'] + i, {'a': 1}, 2) == 3
  for row in ({}, {'a': None}):
    with pytest.raises(BadExample, match='form that the task reads'):
      faults.read_by(lambda row: row['a'].strip(), row)
  with pytest.raises(BadExample, match='OverflowError: int too large'):
    faults.read_by(lambda row: float(row['a']), {'a': 10**400})
  with pytest.raises(ZeroDivisionError):
    faults.read_by(lambda row: 1 // 0, {})


def test_counts_by_reason_and_the_first_places():
  left_out = faults.LeftOut()
  assert not left_out
  for i in range(7):
    left_out.add('bad UTF-8', f'line {i}')
  left_out.add('not JSON', 'line 9')
  assert len(left_out) == 8
  assert str(left_out) == (
    '7 bad UTF-8 (line 0, line 1, line 2, line 3, line 4, ...), '
    '1 not JSON (line 9)'
  )
