"""How numbers are written."""

import math

import pytest

from kdjax.results import tables
from kdjax.results.intervals import Estimate


@pytest.mark.parametrize(
  'found, text',
  [
    (Estimate(61.2, 59.9, 62.4), '61.20 [59.90, 62.40]'),
    (Estimate(0.12, 0.1, 0.14), '0.120 [0.100, 0.140]'),
    (Estimate(61.2), '61.20'),
    (Estimate(math.nan), '-'),
  ],
)
def test_cells(found, text):
  assert tables.cell(found) == text


def test_gains_are_signed():
  found = Estimate(1.5, -0.5, 3.5)
  assert tables.cell(found, signed=True) == '+1.50 [-0.50, +3.50]'
