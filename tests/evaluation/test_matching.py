"""Exact match and edit distance on small cases."""

import numpy as np
import pytest

from kdjax.evaluation import text


def test_exact_match_takes_any_reference_and_any_white_space():
  scores = text.score(
    'exact_match',
    ['AH  B\n', 'ah b', 'C', ''],
    [('X', 'AH B'), ('AH B',), ('C',), ('a',)],
  )
  np.testing.assert_array_equal(scores.per_example, [100, 0, 100, 0])
  assert scores.value == 50


@pytest.mark.parametrize(
  'said, equal',
  [
    ('the  Eiffel-Tower!', True),  # 'the eiffeltower'
    ('"The EiffelTower"', True),
    ('Eiffel-Tower', False),  # The article counts.
    ('the Eiffel Tower', False),  # Punctuation goes, it leaves no space.
    ('', False),
  ],
)
def test_normalized_exact_match_keeps_articles(said, equal):
  scores = text.score(
    'exact_match_normalized', [said], [('x', 'The Eiffel-Tower.')]
  )
  assert scores.value == 100 * equal


@pytest.mark.parametrize(
  'a, b, expected',
  [('', '', 0), ('abc', '', 3), ('', 'ab', 2), ('kitten', 'sitting', 3)],
)
def test_edit_distance(a, b, expected):
  assert text.edit_distance(a, b) == text.edit_distance(b, a) == expected


def test_phoneme_error_rate_divides_sums_by_the_closest_reference():
  scores = text.score(
    'phoneme_error_rate',
    ['K AE T', 'D AO', 'B'],
    [('K AE T', 'K AH T'), ('D AO G Z', 'D AA G'), ('EH', 'B IY')],
  )
  # 0 of 3; 2 of 4 (both are 2 edits away, the longer counts); 1 of 2 (also
  # 'EH' is 1 edit away).
  np.testing.assert_array_equal(scores.statistics, [[0, 3], [2, 4], [1, 2]])
  assert scores.value == pytest.approx(100 * 3 / 9)
