"""Scores are sums of statistics, turned into a number at the end."""

import numpy as np

from kdjax.evaluation import scores


def test_the_score_is_the_ratio_of_sums_and_not_the_mean_of_ratios():
  found = scores.from_ratio([1, 1], [1, 3])
  assert found.value == 50
  np.testing.assert_allclose(found.per_example, [100, 100 / 3])
  assert scores.from_values([True, False, 0.5, 0]).value == 37.5


def test_a_ratio_over_nothing_is_0_or_1():
  sums = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 4.0]])
  np.testing.assert_array_equal(scores.ratio(sums), [0, 1, 0.25])
