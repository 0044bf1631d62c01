"""Generation metrics agree with the libraries that define them."""

import decimal

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from kdjax.evaluation import text

PREDICTIONS = [
  'the cat sat on the mat',
  'A library for parsing files.',
  'tools, and more tools',
  '',
  'nothing in common here at all',
]
REFERENCES = [
  ('the cat sat on a mat', 'a cat was sitting on the mat'),
  ('library for parsing of files',),
  ('more tools and tools', 'tools!', 'the tool is running'),
  ('empty prediction', 'another'),
  ('completely different words',),
]
# sacrebleu wants one list a reference position.
COLUMNS = [
  [refs[i] if i < len(refs) else None for refs in REFERENCES] for i in range(3)
]


@pytest.mark.parametrize('kind', ['rouge1', 'rouge2', 'rougeL'])
@pytest.mark.parametrize('use_stemmer', [True, False])
def test_rouge_is_rouge_score_with_the_best_reference(kind, use_stemmer):
  scorer = rouge_scorer.RougeScorer([kind], use_stemmer=use_stemmer)
  expected = [
    100 * max(scorer.score(ref, said)[kind].fmeasure for ref in refs)
    for said, refs in zip(PREDICTIONS, REFERENCES)
  ]
  scores = text.score(kind, PREDICTIONS, REFERENCES, use_stemmer=use_stemmer)
  np.testing.assert_allclose(scores.per_example, expected, rtol=1e-12)
  np.testing.assert_allclose(scores.value, np.mean(expected), rtol=1e-12)


def test_the_stemmer_is_on_by_default():
  said, refs = ['parsing libraries'], [('parse library',)]
  assert text.score('rouge1', said, refs).value == pytest.approx(100)
  assert text.score('rouge1', said, refs, use_stemmer=False).value == 0


@pytest.mark.parametrize(
  'name, metric',
  [
    ('bleu', sacrebleu.BLEU()),
    ('chrf', sacrebleu.CHRF()),
    ('ter', sacrebleu.TER()),
  ],
)
def test_corpus_scores_are_those_of_sacrebleu(name, metric):
  scores = text.score(name, PREDICTIONS, REFERENCES)
  expected = metric.corpus_score(PREDICTIONS, COLUMNS).score
  assert scores.value == pytest.approx(expected, abs=1e-12)
  # A resample is a corpus of its own: the sums must say what sacrebleu says.
  rows = [0, 0, 2, 4, 1]
  resampled = metric.corpus_score(
    [PREDICTIONS[i] for i in rows], [[c[i] for i in rows] for c in COLUMNS]
  ).score
  got = scores.aggregate(scores.statistics[rows].sum(0))
  assert float(got) == pytest.approx(resampled, abs=1e-12)
  assert scores.per_example.shape == (5,)


def test_bleu_matches_the_module_level_function():
  expected = sacrebleu.corpus_bleu(PREDICTIONS, COLUMNS).score
  assert text.score('bleu', PREDICTIONS, REFERENCES).value == expected


def test_exact_match_takes_any_reference_and_any_white_space():
  scores = text.score(
    'exact_match',
    ['AH  B\n', 'ah b', 'C', ''],
    [('X', 'AH B'), ('AH B',), ('C',), ('a',)],
  )
  np.testing.assert_array_equal(scores.per_example, [100, 0, 100, 0])
  assert scores.value == 50


@pytest.mark.parametrize(
  'said, last_number, expected',
  [
    ('so 3 + 4 = 7\n#### 7', False, '7'),
    ('#### $1,234.50.', False, '1234.50'),
    ('#### -$5', False, '-5'),
    ('#### 18.00', False, '18'),
    ('#### 12\n\nQ: next? #### 99', False, '12'),
    ('it costs $1,200, or 12% more.', True, '12'),
    ('the answer is 42.', True, '42'),
    ('10 - 3 = 7', True, '7'),
    ('5-3', True, '3'),
    ('the answer is 42.', False, None),
    ('no number', True, None),
  ],
)
def test_gsm8k_answer(said, last_number, expected):
  answer = text.gsm8k_answer(said, last_number=last_number)
  assert answer == (None if expected is None else decimal.Decimal(expected))


def test_gsm8k_accuracy_strict_and_flexible():
  said = ['#### 1,000', 'it is 7', 'no idea']
  refs = [('a <<500*2=1000>> b\n#### 1000',), ('#### 7',), ('no number',)]
  assert text.score('gsm8k_accuracy', said, refs).value == pytest.approx(
    100 / 3
  )
  assert text.score(
    'gsm8k_accuracy_flexible', said, refs
  ).value == pytest.approx(200 / 3)


def test_distinct_counts_unique_ngrams_of_the_corpus():
  said = ['the cat the cat', 'The dog.', '']
  refs = [('',)] * 3
  # the, cat, dog, full stop of 7 words.
  assert text.score('distinct1', said, refs).value == pytest.approx(400 / 7)
  # the-cat, cat-the, the-dog, dog-stop of 5: none crosses predictions.
  assert text.score('distinct2', said, refs).value == pytest.approx(400 / 5)


@pytest.mark.parametrize(
  'a, b, expected',
  [('', '', 0), ('abc', '', 3), ('', 'ab', 2), ('kitten', 'sitting', 3)],
)
def test_edit_distance(a, b, expected):
  assert text.edit_distance(a, b) == text.edit_distance(b, a) == expected


def test_phoneme_error_rate_divides_sums_by_the_closest_reference():
  scores = text.score(
    'phoneme_error_rate',
    ['K AE T', 'D AO', 'B'],
    [('K AE T', 'K AH T'), ('D AO G Z', 'D AA G'), ('EH', 'B IY')],
  )
  # 0 of 3; 2 of 4 (both are 2 edits away, the longer counts); 1 of 2 (also
  # 'EH' is 1 edit away).
  np.testing.assert_array_equal(scores.statistics, [[0, 3], [2, 4], [1, 2]])
  assert scores.value == pytest.approx(100 * 3 / 9)


@pytest.mark.parametrize('name', text.METRICS)
def test_every_metric_yields_statistics_of_each_example(name):
  refs = [('#### 1 a',)] * 3
  scores = text.score(name, ['#### 1 a', 'b c', ''], refs)
  assert scores.statistics.shape[0] == 3
  assert scores.statistics.dtype == np.float64
  assert scores.per_example.shape == (3,)
  assert np.isfinite(scores.per_example).all()
  stacked = np.stack([scores.statistics.sum(0)] * 2)
  np.testing.assert_allclose(scores.aggregate(stacked), [scores.value] * 2)


@pytest.mark.parametrize(
  'name, said, refs, message',
  [
    ('rouge', ['a'], [('a',)], "'rouge'.*Allowed: rouge1, rouge2"),
    ('bleu', ['a'], [('a',), ('b',)], '1 predictions and 2'),
    ('bleu', [], [], '0 predictions'),
    ('bleu', ['a', 'b'], [('a',), ()], 'example 1'),
    ('bleu', ['a'], ['text'], "'text'.*tuple"),
  ],
)
def test_bad_input_names_the_value(name, said, refs, message):
  with pytest.raises(ValueError, match=message):
    text.score(name, said, refs)
