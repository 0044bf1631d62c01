"""Means as (sum, count) pairs, until the last moment."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import types


@types.struct
class Mean:
  """A mean that isn't taken yet, so that it adds up exactly over batches.

  Attributes:
    total: [] sum of the values.
    count: [] how many there are.
  """

  total: Any
  count: Any

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.count + other.count)

  @property
  def value(self) -> float:
    """total / count on the host; NaN where nothing was counted."""
    count = float(self.count)
    return float(self.total) / count if count else math.nan


def accumulate(
  metrics: Mapping[str, Any] | None, more: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the union of two dicts of metrics, on the host, in float64.

  Means and (sum, count) pairs add up; of plain values the later one stays.
  """
  result = dict(metrics or {})
  for name, metric in jax.device_get(dict(more)).items():
    if isinstance(metric, (Mean, tuple)):
      metric = _float64(metric)
      metric = result[name] + metric if name in result else metric
    result[name] = metric
  return result


def _float64(metric: Mean | tuple[Any, Any]) -> Mean:
  pair = metric if isinstance(metric, tuple) else (metric.total, metric.count)
  return Mean(*(np.float64(each) for each in pair))


def summarize(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Returns every metric as a float: means taken, arrays fetched."""
  summary = accumulate(None, metrics)
  return {
    name: metric.value if isinstance(metric, Mean) else float(metric)
    for name, metric in summary.items()
  }


class Totals:
  """The metrics of the steps since the last line, which a checkpoint keeps."""

  def __init__(self):
    self._metrics: dict[str, Any] = {}

  def add(self, metrics: Mapping[str, Any]) -> None:
    """Adds the means of a step."""
    self._metrics = accumulate(self._metrics, metrics)

  def take(self) -> dict[str, float]:
    """Returns the means over what was added; starts over."""
    found, self._metrics = summarize(self._metrics), {}
    return found

  def get_state(self) -> dict[str, list[float]]:
    """Returns every (sum, count), as JSON values."""
    return {
      name: [float(mean.total), float(mean.count)]
      for name, mean in self._metrics.items()
    }

  def set_state(self, state: Mapping[str, list[float]]) -> None:
    """Goes on from what `get_state` returned."""
    self._metrics = {
      name: Mean(np.float64(total), np.float64(count))
      for name, (total, count) in state.items()
    }
