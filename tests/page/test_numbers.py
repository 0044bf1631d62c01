"""Numbers as sentences have them."""

import math

import pytest

from kdjax.page import numbers


@pytest.mark.parametrize(
  'found, text',
  [
    ((21.4, 20.951, 21.8), '21.40 [20.95, 21.80]'),
    ((0.1234, 0.1, 0.15), '0.123 [0.100, 0.150]'),
    ((21.4, None, None), '21.40'),
    ((None, None, None), 'unknown'),
  ],
)
def test_a_cell_has_the_digits_of_its_size(found, text):
  assert numbers.cell(found) == text


def test_a_gain_has_its_sign():
  assert numbers.cell((1.5, -0.25, 3.0), signed=True) == '+1.50 [-0.25, +3.00]'


def test_what_json_cannot_say_is_none():
  assert [numbers.finite(x) for x in (math.nan, math.inf, None)] == [None] * 3
  assert numbers.rounded(1234.5678) == 1234.6
  assert numbers.rounded(math.nan) is None


@pytest.mark.parametrize(
  'a, b, found',
  [
    ((1, 0, 2), (3, 2, 4), True),
    ((1, 0, 2), (3, 2.1, 4), False),
    ((3, 2.1, 4), (1, 0, 2), False),
    ((1, None, None), (3, 2.1, 4), True),
  ],
)
def test_intervals_overlap_where_they_share_a_value(a, b, found):
  assert numbers.overlap(a, b) is found
