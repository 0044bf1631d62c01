"""ROUGE agrees with rouge_score."""

import numpy as np
import pytest
from rouge_score import rouge_scorer

from kdjax.evaluation import text
from tests.evaluation import cases


@pytest.mark.parametrize('kind', ['rouge1', 'rouge2', 'rougeL'])
@pytest.mark.parametrize('use_stemmer', [True, False])
def test_rouge_is_rouge_score_with_the_best_reference(kind, use_stemmer):
  scorer = rouge_scorer.RougeScorer([kind], use_stemmer=use_stemmer)
  expected = [
    100 * max(scorer.score(ref, said)[kind].fmeasure for ref in refs)
    for said, refs in zip(cases.PREDICTIONS, cases.REFERENCES)
  ]
  scores = text.score(
    kind, cases.PREDICTIONS, cases.REFERENCES, use_stemmer=use_stemmer
  )
  np.testing.assert_allclose(scores.per_example, expected, rtol=1e-12)
  np.testing.assert_allclose(scores.value, np.mean(expected), rtol=1e-12)


def test_the_stemmer_is_on_by_default():
  said, refs = ['parsing libraries'], [('parse library',)]
  assert text.score('rouge1', said, refs).value == pytest.approx(100)
  assert text.score('rouge1', said, refs, use_stemmer=False).value == 0
