"""BLEU, chrF and TER agree with SacreBLEU."""

import numpy as np
import pytest
import sacrebleu

from kdjax.evaluation import text
from tests.evaluation import cases


@pytest.mark.parametrize(
  'name, metric',
  [
    ('bleu', sacrebleu.BLEU()),
    ('chrf', sacrebleu.CHRF()),
    ('ter', sacrebleu.TER()),
  ],
)
def test_corpus_scores_are_those_of_sacrebleu(name, metric):
  scores = text.score(name, cases.PREDICTIONS, cases.REFERENCES)
  expected = metric.corpus_score(cases.PREDICTIONS, cases.COLUMNS).score
  assert scores.value == pytest.approx(expected, abs=1e-12)
  # A resample is a corpus of its own: the sums must say what sacrebleu says.
  rows = [0, 0, 2, 4, 1]
  resampled = metric.corpus_score(
    [cases.PREDICTIONS[i] for i in rows],
    [[c[i] for i in rows] for c in cases.COLUMNS],
  ).score
  got = scores.aggregate(scores.statistics[rows].sum(0))
  assert float(got) == pytest.approx(resampled, abs=1e-12)
  assert scores.per_example.shape == (5,)


def test_bleu_matches_the_module_level_function():
  expected = sacrebleu.corpus_bleu(cases.PREDICTIONS, cases.COLUMNS).score
  assert (
    text.score('bleu', cases.PREDICTIONS, cases.REFERENCES).value == expected
  )


def test_sentence_bleu_is_the_mean_of_sacrebleu_with_effective_order():
  scores = text.score('sentence_bleu', cases.PREDICTIONS, cases.REFERENCES)
  expected = [
    sacrebleu.sentence_bleu(said, list(refs)).score
    for said, refs in zip(cases.PREDICTIONS, cases.REFERENCES)
  ]
  np.testing.assert_allclose(scores.per_example, expected, rtol=1e-12)
  assert scores.value == pytest.approx(np.mean(expected))
  # Two words have no 4-grams: without the effective order this would be 0.
  assert text.score('sentence_bleu', ['a b'], [('a b',)]).value > 99.99
