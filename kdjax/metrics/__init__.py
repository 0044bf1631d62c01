"""Means, the metrics file, TensorBoard, and clocks."""

from kdjax.metrics.clocks import Spent, Throughput, progress_bar
from kdjax.metrics.means import Mean, Totals, accumulate, summarize
from kdjax.metrics.writing import Writer, read

__all__ = [
  'Mean',
  'Spent',
  'Throughput',
  'Totals',
  'Writer',
  'accumulate',
  'progress_bar',
  'read',
  'summarize',
]
