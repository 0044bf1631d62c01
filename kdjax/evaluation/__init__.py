"""Evaluation: generation metrics, distances to the teacher, intervals."""

from kdjax.evaluation.analyses import ANALYSES
from kdjax.evaluation.bootstrap import Interval, interval, paired_difference
from kdjax.evaluation.buckets import Bucket, by_length
from kdjax.evaluation.coverage import likelihood_and_coverage
from kdjax.evaluation.distribution import (
  DIVERGENCES,
  sequence_divergences,
  token_divergences,
)
from kdjax.evaluation.examples import write_examples
from kdjax.evaluation.exposure import exposure_bias
from kdjax.evaluation.loop import Evaluator, Result, difference, score_texts
from kdjax.evaluation.report import heading, lower_is_better, samples, table
from kdjax.evaluation.rollouts import Pair
from kdjax.evaluation.text import (
  CONVENTIONS,
  METRICS,
  Scores,
  consensus,
  missing,
  pass_at_1,
  score,
  self_bleu,
)

__all__ = [
  'ANALYSES',
  'CONVENTIONS',
  'DIVERGENCES',
  'METRICS',
  'Bucket',
  'Evaluator',
  'Interval',
  'Pair',
  'Result',
  'Scores',
  'by_length',
  'consensus',
  'difference',
  'exposure_bias',
  'interval',
  'likelihood_and_coverage',
  'heading',
  'lower_is_better',
  'missing',
  'paired_difference',
  'pass_at_1',
  'samples',
  'score',
  'score_texts',
  'self_bleu',
  'sequence_divergences',
  'table',
  'token_divergences',
  'write_examples',
]
