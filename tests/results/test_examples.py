"""Metrics are found again in the sums over examples."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax import evaluation
from kdjax.results import load
from kdjax.results.examples import Examples, System, per_example, read_examples

METRICS = 'exact_match', 'phoneme_error_rate', 'forward_kl_student'


@pytest.fixture
def system(grid):
  return load(grid).settings[5].systems[0]


@pytest.mark.parametrize('metric', METRICS)
def test_the_sums_give_the_metric(system, metric):
  # A mean over examples, one over phones, one over tokens.
  found = per_example(system.examples, metric, system.scores[metric])
  assert found.value == pytest.approx(system.scores[metric], rel=1e-4)
  assert len(found.statistics) == 120


def test_resamples_are_those_of_an_evaluation(system):
  # The same seed draws the same examples, as far as four digits go.
  for metric in METRICS:
    low, high = np.percentile(system.resampled(metric), [2.5, 97.5])
    ends = (system.scores[f'{metric}_{each}'] for each in ('low', 'high'))
    assert (low, high) == pytest.approx(tuple(ends), rel=2e-3)


def test_bleu_is_scored_again_from_the_texts():
  texts = ['the cat sat on the mat', 'a dog ran', 'birds sing in the old tree']
  gold = [['the cat sat on a mat'], ['the dog ran'], ['birds sing in a tree']]
  scores = evaluation.score('bleu', texts, gold)
  each = np.round(scores.per_example, 4)
  assert scores.value != pytest.approx(each.mean(), rel=0.01)
  found = per_example(_examples(texts, gold, bleu=each), 'bleu', scores.value)
  np.testing.assert_array_equal(found.statistics, scores.statistics)


def test_a_mean_over_gold_tokens_is_weighed_by_their_number():
  rng = np.random.default_rng(0)
  lengths, scores = rng.integers(3, 9, size=20), rng.gamma(2.0, size=20)
  examples = _examples(['a'] * 20, [['a']] * 20, kl=scores)
  examples = dataclasses.replace(examples, gold_lengths=lengths)
  truth = np.sum(lengths * scores) / np.sum(lengths)
  found = per_example(examples, 'kl', truth)
  np.testing.assert_array_equal(found.statistics[:, 1], lengths)
  assert found.value == pytest.approx(truth)


def test_what_no_sum_gives_has_none():
  examples = _examples(['a', 'b'], [['a'], ['a']], own=[1.0, 2.0])
  assert per_example(examples, 'own', 1.5).value == pytest.approx(1.5)
  assert per_example(examples, 'own', 1.7) is None
  assert per_example(examples, 'other', 1.5) is None
  unknown = _examples(['a', 'b'], [['a'], ['a']], own=[1.0, np.nan])
  assert per_example(unknown, 'own', 1.0) is None


def _examples(texts, gold, **scores):
  count = len(texts)
  return Examples(
    ids=tuple(range(count)),
    inputs=('',) * count,
    texts=tuple(texts),
    references=tuple(gold),
    lengths=np.zeros(count),
    gold_lengths=np.zeros(count),
    scores={name: np.array(values) for name, values in scores.items()},
  )


def test_without_a_file_or_a_response_there_are_no_examples(tmp_path, grid):
  assert System('a', {'m': 1.0}, tmp_path, 'a').resampled('m') is None
  assert read_examples(grid / 'reference' / 'examples.jsonl', 'texts') is None


def test_a_line_that_is_no_example_is_named(tmp_path):
  path = tmp_path / 'examples.jsonl'
  whole = {'id': 0, 'input': '', 'references': ['a']}
  whole['responses'] = {'student': {'text': 'a', 'scores': {'m': 1.0}}}
  lines = [whole, {'id': 1, 'responses': {'student': {}}}]
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  with pytest.raises(ValueError, match=r'examples\.jsonl, line 2: not an exam'):
    read_examples(path, 'student')
