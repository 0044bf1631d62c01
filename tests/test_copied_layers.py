"""The table of copied layers, and what lies between its lines."""

import numpy as np
import pytest

from kdjax.copied_layers import copied_layers


@pytest.mark.parametrize(
  'teacher, expected',
  [
    (12, [[0], [0, 6], [0, 6, 11], [0, 4, 8, 11]]),
    (6, [[0], [0, 5], [0, 2, 5], [0, 1, 3, 5]]),
    (16, [[0], [0, 15], [0, 8, 15], [0, 5, 10, 15]]),
  ],
)
def test_copied_layers_are_those_of_the_released_table(teacher, expected):
  found = [list(copied_layers(teacher, n)) for n in (1, 2, 3, 4)]
  assert found == expected


def test_copied_layers_are_spread_from_the_first_to_the_last():
  for teacher in range(1, 40):
    every = tuple(range(teacher))
    assert copied_layers(teacher, teacher) == every
    for student in range(1, teacher):
      found = copied_layers(teacher, student)
      assert found[0] == 0 and len({*found}) == student
      assert list(found) == sorted(found)
      # The table ends 12 -> 2 in the middle.
      if student > 1 and (teacher, student) != (12, 2):
        gaps = np.diff(found)
        assert found[-1] == teacher - 1 and gaps.max() - gaps.min() <= 1
