"""The bootstrap covers what it should, and pairs what it compares."""

import numpy as np
import pytest

from kdjax.evaluation import bootstrap, text


def test_coverage_of_a_bernoulli_mean():
  rng = np.random.default_rng(0)
  trials, n, rate = 400, 100, 0.3
  covered = 0
  for _ in range(trials):
    scores = text.from_values(rng.random(n) < rate)
    _, low, high = bootstrap.interval(scores, resamples=400)
    covered += low <= 100 * rate <= high
  # The standard error of the share is sqrt(.95 * .05 / 400) = 1.1 points, and
  # the percentile interval of 100 coin flips falls about one point short:
  # 0.945 +- 0.035 is three standard errors. A 90% interval would fail.
  assert 0.91 <= covered / trials <= 0.98


def test_interval_width_of_a_mean_is_that_of_the_normal():
  values = np.random.default_rng(1).normal(size=2000) / 100
  value, low, high = bootstrap.interval(
    text.from_values(values), resamples=4000
  )
  assert value == pytest.approx(100 * values.mean())
  # The 2.5% quantile of 4000 draws is known to about 4% of a standard error.
  expected = 2 * 1.96 * 100 * values.std() / np.sqrt(2000)
  assert high - low == pytest.approx(expected, rel=0.06)


def test_resampled_sums_are_sums_of_n_examples():
  statistics = np.stack([np.ones(7), np.arange(7.0)], -1)
  sums = bootstrap.resampled_sums(statistics, 500, seed=3)
  assert sums.shape == (500, 2)
  np.testing.assert_array_equal(sums[:, 0], 7)
  assert sums[:, 1].min() >= 0 and sums[:, 1].max() <= 42
  # Standard error of the grand mean: 2 * sqrt(7) / sqrt(500) = 0.24.
  assert sums[:, 1].mean() == pytest.approx(21, abs=1.0)


def test_block_edges_lose_no_resample():
  statistics = np.ones((2**19, 1))  # two rows a block, so three blocks
  np.testing.assert_array_equal(
    bootstrap.resampled_sums(statistics, 5), np.full((5, 1), 2.0**19)
  )


def test_same_seed_same_interval():
  scores = text.from_values(np.random.default_rng(0).random(50))
  assert bootstrap.interval(scores) == bootstrap.interval(scores)
  assert bootstrap.interval(scores) != bootstrap.interval(scores, seed=1)


def test_identical_systems_differ_by_exactly_zero():
  said = ['a b c d', 'e f g', 'h i j k l']
  refs = [('a b c e',), ('e f',), ('h j k l',)]
  for name in ('bleu', 'rougeL', 'chrf', 'ter'):
    scores = text.score(name, said, refs)
    found = bootstrap.paired_difference(scores, scores, resamples=50)
    assert found == (0.0, 0.0, 0.0)


def test_pairing_removes_the_variance_that_systems_share():
  before = np.random.default_rng(0).random(200)
  found = bootstrap.paired_difference(
    text.from_values(before), text.from_values(before + 0.01)
  )
  # Every example gains exactly one point, so does every resample.
  np.testing.assert_allclose(found, (1.0, 1.0, 1.0), atol=1e-9)


def test_sign_is_after_minus_before():
  zero, one = text.from_values(np.zeros(5)), text.from_values(np.ones(5))
  assert bootstrap.paired_difference(zero, one).low == 100


def test_different_examples_are_refused():
  with pytest.raises(ValueError, match='5 before and 4 after'):
    bootstrap.paired_difference(
      text.from_values(np.zeros(5)), text.from_values(np.zeros(4))
    )
