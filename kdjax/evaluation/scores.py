"""What a metric returns: per-example statistics that add up to its score."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
  """One metric on N examples.

  Attributes:
    statistics: [N, K] float64, what each example adds to the sums.
    aggregate: maps sums of statistics [..., K] to scores [...].
  """

  statistics: np.ndarray
  aggregate: Callable[[np.ndarray], np.ndarray]

  @property
  def value(self) -> float:
    """The score of all examples together."""
    return float(self.aggregate(self.statistics.sum(0)))

  @property
  def per_example(self) -> np.ndarray:
    """The score [N] of each example on its own."""
    return self.aggregate(self.statistics)


def ratio(sums: np.ndarray) -> np.ndarray:
  """Returns `sums[..., 0] / sums[..., 1]`; over 0 it is 0 or 1 (as in TER)."""
  part, whole = sums[..., 0], sums[..., 1]
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(whole > 0, part / whole, np.where(part > 0, 1.0, 0.0))


def percentage(sums: np.ndarray) -> np.ndarray:
  """Returns 100 times the ratio of two sums."""
  return 100.0 * ratio(sums)


def from_ratio(parts: Sequence[float], wholes: Sequence[float]) -> Scores:
  """Scores of 100 Σ part / Σ whole."""
  statistics = np.stack(
    [np.asarray(parts, np.float64), np.asarray(wholes, np.float64)], axis=-1
  )
  return Scores(statistics, percentage)


def from_values(values: Sequence[float]) -> Scores:
  """Scores of 100 times the mean of one value an example."""
  return from_ratio(values, np.ones(len(values)))
