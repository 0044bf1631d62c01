"""Likelihood, coverage and diversity, against sums over all responses."""

import numpy as np
import pytest

from kdjax.evaluation import coverage
from tests import enumeration as e
from tests.evaluation.test_exposure import ROWS, SAMPLES, batches, pair


class Words:
  """Ids 0 and 2 are words; 1 ends."""

  def decode(self, ids):
    return ' '.join('a-b'[i] for i in ids if i != 1)


def exact(said, judge):
  """E and Var of -log p_judge(y) / |y| over y ~ p_said."""
  weights = np.exp(e.log_probabilities(*said))
  length = np.asarray(e.sequences().mask.sum(-1))
  values = -np.asarray(e.log_probabilities(*judge)) / length
  mean = (weights * values).sum()
  return mean, (weights * (values - mean) ** 2).sum()


@pytest.fixture(scope='module')
def found():
  return coverage.likelihood_and_coverage(
    pair(), Words(), batches(ROWS), samples=SAMPLES, resamples=200
  )


def test_each_model_s_samples_cost_the_other_what_enumeration_says(found):
  student, teacher = e.models()[:2], e.models()[2:]
  for name, said, judge, samples in (
    ('likelihood', student, teacher, SAMPLES),
    ('coverage', teacher, student, 5),
  ):
    mean, variance = exact(said, judge)
    error = np.sqrt(variance / (ROWS * samples))
    value, low, high = found[name]
    assert abs(value - mean) <= 4 * error + 1e-5, name
    # The interval is as wide as that of a normal mean, within its own noise.
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.5), name
  other = exact(teacher, student)[0]
  # The two must differ by more than noise, or they could be swapped unseen.
  assert abs(exact(student, teacher)[0] - other) > 0.08


def test_teacher_dist_is_the_mean_share_of_distinct_bigrams(found):
  ((batch, _),) = batches(ROWS)
  samples = list(pair().draw('teacher', batch, 5))
  shares = []
  for row in range(ROWS):
    bigrams = []
    for each in samples:
      tokens = np.asarray(each.response.tokens[row])
      words = [t for t in tokens[np.asarray(each.response.mask[row])] if t != 1]
      bigrams += zip(words, words[1:])
    if bigrams:
      shares.append(len(set(bigrams)) / len(bigrams))
  assert 0 < len(shares) <= ROWS
  assert found['teacher_dist'].value == pytest.approx(100 * np.mean(shares))


def test_inputs_without_bigrams_do_not_count():
  assert coverage._distinct(['', 'a']) == (0.0, 0.0)
  assert coverage._distinct(['a b', 'a b', 'a']) == (0.5, 1.0)
  # No bigram across samples: 'b a' is none.
  assert coverage._distinct(['a b', 'a a']) == (1.0, 1.0)


def test_no_examples_is_an_error():
  with pytest.raises(ValueError, match='no examples'):
    coverage.likelihood_and_coverage(pair(), Words(), [])
