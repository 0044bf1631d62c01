"""Evaluation: generation metrics, distances to the teacher, intervals."""

from kdjax.evaluation.bootstrap import Interval, interval, paired_difference
from kdjax.evaluation.distribution import DIVERGENCES, sequence_divergences
from kdjax.evaluation.loop import Evaluator, Result, difference, score_texts
from kdjax.evaluation.report import lower_is_better, samples, table
from kdjax.evaluation.text import METRICS, Scores, score

__all__ = [
  'DIVERGENCES',
  'METRICS',
  'Evaluator',
  'Interval',
  'Result',
  'Scores',
  'difference',
  'interval',
  'lower_is_better',
  'paired_difference',
  'samples',
  'score',
  'score_texts',
  'sequence_divergences',
  'table',
]
