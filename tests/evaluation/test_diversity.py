"""Distinct n-grams and self-BLEU, by hand and by SacreBLEU."""

import numpy as np
import pytest
import sacrebleu

from kdjax.evaluation import diversity, text
from tests.evaluation import cases


def test_distinct_counts_unique_ngrams_of_the_corpus():
  said = ['the cat the cat', 'The dog.', '']
  refs = [('',)] * 3
  # the, cat, dog, full stop of 7 words.
  assert text.score('distinct1', said, refs).value == pytest.approx(400 / 7)
  # the-cat, cat-the, the-dog, dog-stop of 5: none crosses predictions.
  assert text.score('distinct2', said, refs).value == pytest.approx(400 / 5)


def test_concatenated_ngrams_cross_from_one_text_into_the_next():
  said = ['a b', 'c.', '', 'a b c']
  refs = [('',)] * 4
  # a b c . a b c: the bigrams are ab bc c. .a ab bc.
  scores = text.score('distinct2_concatenated', said, refs)
  assert scores.value == pytest.approx(100 * 4 / 6)
  # Of the first text start ab and bc, each found in another text too.
  np.testing.assert_allclose(
    scores.statistics, [[1, 2], [2, 2], [0, 0], [1, 2]]
  )
  assert text.score('distinct2', said, refs).value == pytest.approx(75)
  both = [
    text.score(name, said, refs).value
    for name in ('distinct1', 'distinct1_concatenated')
  ]
  assert both[0] == both[1] == pytest.approx(100 * 4 / 7)


GROUPS = [
  ['the cat sat on the mat', 'the cat sat on a mat', 'a dog, the cat'],
  ['the the the the cat', 'the the dog', 'the end'],
  ['a b', 'c d'],
  ['K AE T', 'K AE T'],
  ['', ''],
  ['', 'a b c d e'],
]


def test_self_bleu_is_sacrebleu_of_each_against_the_others():
  expected = []
  for texts in GROUPS:
    scores = [
      sacrebleu.sentence_bleu(said, texts[:i] + texts[i + 1 :]).score
      for i, said in enumerate(texts)
    ]
    expected.append(np.mean(scores))
  expected[4] = 100  # Empty texts are all the same too.
  scores = diversity.self_bleu(GROUPS)
  np.testing.assert_allclose(scores.per_example, expected, rtol=1e-9)
  assert scores.per_example[2] == 0
  assert scores.value == pytest.approx(np.mean(expected))


def test_self_bleu_of_outputs_takes_them_as_one_group():
  said = [*cases.PREDICTIONS, *(t for group in GROUPS[:3] for t in group)]
  scores = text.score('self_bleu', said, [('',)] * len(said))
  assert scores.value == pytest.approx(diversity.self_bleu([said]).value)
  assert scores.per_example[0] == 100  # It is there twice.
  assert text.score('self_bleu', ['a'], [('a',)]).value == 0


def test_self_bleu_needs_two_samples_of_each_prompt():
  with pytest.raises(ValueError, match=r'2 prompts, of which \[1\]'):
    diversity.self_bleu([['a', 'b'], ['c']])
