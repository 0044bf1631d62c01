"""BERTScore is greedy matching, written out."""

import numpy as np
import pytest

from kdjax.evaluation import bertscore, minilm, text
from tests.evaluation import cases

# A word is a letter, embedded as itself: similarities are 0, 0.6 or 1.
VECTORS = {'a': (1.0, 0.0), 'b': (0.0, 1.0), 'c': (1.2, 1.6)}


@pytest.fixture
def letters(monkeypatch):
  vector = lambda said: np.reshape([VECTORS[w] for w in said.split()], (-1, 2))
  monkeypatch.setattr(minilm, 'embed', lambda texts: [vector(t) for t in texts])


def test_every_token_takes_its_best_partner_in_the_best_reference(letters):
  said, refs = ['a b', 'a', ''], [('a c a', 'a'), ('b',), ('a',)]
  parts = {
    part: bertscore.bertscore(said, refs, part=part).per_example / 100
    for part in bertscore.PARTS
  }
  # a takes a, b takes c with 0.8; a c a take a b a. The text 'a' alone recalls
  # all of itself.
  np.testing.assert_allclose(parts['precision'], [0.9, 0, 0])
  np.testing.assert_allclose(parts['recall'], [1.0, 0, 0])
  recall = (1 + 0.8 + 1) / 3
  np.testing.assert_allclose(
    parts['f1'], [2 * 0.9 * recall / (0.9 + recall), 0, 0]
  )


def test_chunks_change_nothing(letters, monkeypatch):
  said, refs = ['a b', 'c', 'b'], [('a c',), ('b', 'a'), ('c',)]
  whole = bertscore.bertscore(said, refs).statistics
  monkeypatch.setattr(bertscore, 'CHUNK', 2)
  np.testing.assert_array_equal(
    bertscore.bertscore(said, refs).statistics, whole
  )


def test_an_unknown_part_names_the_known():
  with pytest.raises(ValueError, match="'f2'.*'precision', 'recall', 'f1'"):
    bertscore.bertscore(['a'], [('a',)], part='f2')


@pytest.mark.slow
def test_identical_texts_score_100_and_meaning_counts():
  said = [t for t in cases.PREDICTIONS if t]
  same = text.score('bertscore_minilm', said, [(t,) for t in said])
  np.testing.assert_allclose(same.per_example, 100, atol=1e-4)
  kin, strange = text.score(
    'bertscore_minilm', ['a small dog'] * 2, [('a little puppy',), ('tax law',)]
  ).per_example
  assert strange < kin < 100
  swap = lambda a, b, part: text.score(
    'bertscore_minilm', [a], [(b,)], part=part
  )
  a, b = 'the cat sat', 'a cat sat on the mat'
  assert swap(a, b, 'precision').value == pytest.approx(
    swap(b, a, 'recall').value
  )
