"""Percentile bootstrap intervals over examples."""

from typing import NamedTuple

import numpy as np

from kdjax.evaluation import text


class Interval(NamedTuple):
  """A score and the ends of its interval."""

  value: float
  low: float
  high: float


def resampled_sums(
  statistics: np.ndarray, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
  """Sums of statistics [N, K] over resamples of the N examples.

  Which examples a resample holds depends on (N, resamples, seed) only, so
  systems that are scored on the same examples are resampled together.

  Returns:
    [resamples, K].
  """
  rng = np.random.default_rng(seed)
  n = len(statistics)
  # About 1M draws at a time: the [resamples, N] counts may not fit.
  rows = max(1, 2**20 // n)
  sums = []
  for start in range(0, resamples, rows):
    size = min(rows, resamples - start)
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
    sums.append(counts.astype(np.float64) @ statistics)
  return np.concatenate(sums)


def interval(
  scores: text.Scores,
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
) -> Interval:
  """The score with its percentile bootstrap interval.

  Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
  """
  drawn = scores.aggregate(resampled_sums(scores.statistics, resamples, seed))
  return Interval(scores.value, *_percentiles(drawn, level))


def paired_difference(
  before: text.Scores,
  after: text.Scores,
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
) -> Interval:
  """The gain `after - before` on the same examples, resampled together.

  Koehn, "Statistical significance tests for machine translation evaluation",
  2004, section 4.

  Raises:
    ValueError: where the two hold different numbers of examples.
  """
  if len(before.statistics) != len(after.statistics):
    raise ValueError(
      'A paired comparison needs the same examples on both sides; got '
      f'{len(before.statistics)} before and {len(after.statistics)} after.'
    )
  drawn = [
    scores.aggregate(resampled_sums(scores.statistics, resamples, seed))
    for scores in (before, after)
  ]
  value = after.value - before.value
  return Interval(value, *_percentiles(drawn[1] - drawn[0], level))


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
  tail = 50.0 * (1.0 - level)
  low, high = np.percentile(values, [tail, 100.0 - tail])
  return float(low), float(high)
