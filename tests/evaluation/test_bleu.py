"""BLEU-n and iBLEU are NLTK's, as LLMR reports them."""

import numpy as np
import pytest
from nltk.tokenize import wordpunct_tokenize
from nltk.translate import bleu_score

from kdjax.evaluation import text
from tests.evaluation import cases

SAID = [*cases.PREDICTIONS, 'The cat sat on the mat, and the dog sat there.']
REFS = [*cases.REFERENCES, ('A cat sat on the mat and the dog sat here.',)]


def nltk_bleu(predictions, references, n):
  words = lambda said: wordpunct_tokenize(said.lower())
  return 100 * bleu_score.corpus_bleu(
    [[words(t) for t in texts] for texts in references],
    [words(said) for said in predictions],
    weights=(1 / n,) * n,
  )


@pytest.mark.filterwarnings(r'ignore:\s*The hypothesis contains 0')
@pytest.mark.parametrize('n', [1, 2, 3, 4])
def test_bleu_n_is_corpus_bleu_of_nltk(n):
  scores = text.score(f'bleu{n}', SAID, REFS)
  assert scores.value == pytest.approx(nltk_bleu(SAID, REFS, n), abs=1e-9)
  for rows in ([0, 0, 5, 2], [5, 1], [3], [4, 3], [2, 4]):
    resample = [SAID[i] for i in rows], [REFS[i] for i in rows]
    got = float(scores.aggregate(scores.statistics[rows].sum(0)))
    # Without any match of an order NLTK returns 1e-76, and not 0.
    assert got == pytest.approx(nltk_bleu(*resample, n), abs=1e-9)


def test_bleu_is_not_smoothed_and_lower_cases():
  assert text.score('bleu2', ['a x b'], [('a b',)]).value == 0
  assert text.score('bleu2', ['A, B'], [('a, b',)]).value == pytest.approx(100)


def test_ibleu_takes_copies_of_the_input_off():
  inputs = ['the cat sat on the mat'] * len(SAID)
  scores = text.score('ibleu', SAID, REFS, inputs=inputs)
  gold = nltk_bleu(SAID, REFS, 4)
  copied = nltk_bleu(SAID, [(t,) for t in inputs], 4)
  assert gold > 0 and copied > 0
  assert scores.value == pytest.approx(0.9 * gold - 0.1 * copied)
  # LMReward's table: BLEU 30.83 and self-BLEU 44.77 give 23.27.
  sums = lambda bleu: [bleu] * 4 + [100.0] * 4 + [1.0, 1.0]
  published = scores.aggregate(np.array(sums(30.83) + sums(44.77)))
  assert round(float(published), 2) == 23.27
