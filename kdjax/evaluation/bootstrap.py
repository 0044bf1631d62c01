"""Percentile bootstrap intervals over examples."""

import functools
from collections.abc import Iterator
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
  n = len(statistics)
  # All metrics of a table are resampled alike, and to draw takes nearly all of
  # the time: up to 32 MB of draws are kept.
  draw = _kept if n * resamples <= 2**24 else _draws
  blocks = draw(n, resamples, seed)
  return np.concatenate([b.astype(np.float64) @ statistics for b in blocks])


def _draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yields how often each resample [·, n] holds each example."""
  rng = np.random.default_rng(seed)
  # About 1M draws at a time: the [resamples, N] counts may not fit.
  rows = max(1, 2**20 // n)
  for start in range(0, resamples, rows):
    size = min(rows, resamples - start)
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


@functools.lru_cache(maxsize=2)
def _kept(n: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
  # Nothing is drawn 2**16 times.
  return tuple(b.astype(np.uint16) for b in _draws(n, resamples, seed))


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
  return Interval(scores.value, *percentiles(drawn, level))


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
  return Interval(value, *percentiles(drawn[1] - drawn[0], level))


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
  """Returns the ends of the interval that holds that share of the draws."""
  tail = 50.0 * (1.0 - level)
  low, high = np.percentile(values, [tail, 100.0 - tail])
  return float(low), float(high)
