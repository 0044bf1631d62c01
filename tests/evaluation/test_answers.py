"""Final answers, and votes over them."""

import collections
import decimal
import itertools

import numpy as np
import pytest

from kdjax.evaluation import answers, text


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


def test_pass_at_1_is_the_mean_over_samples_then_problems():
  scores = answers.pass_at_1([[True, False, False, False], [True, True]])
  np.testing.assert_array_equal(scores.per_example, [25, 100])
  assert scores.value == 62.5


def elected(votes, right):
  """The majority vote, written as one says it."""
  counts = collections.Counter(v for v in votes if v is not None)
  most = max(counts.values(), default=0)
  winners = [answer for answer, n in counts.items() if n == most]
  return np.mean([w in right for w in winners]) if winners else 0.0


@pytest.mark.parametrize(
  'votes, right',
  [
    ('aabc', 'a'),
    ('aabb', 'b'),
    ('aabbcc', 'ac'),  # Two right answers tie with a wrong one.
    ('abcdefa', 'a'),
    ('aab?????', 'b'),
    ('????', 'a'),
    ('bbbc', 'a'),
  ],
)
def test_a_vote_of_k_is_the_mean_over_all_subsets_of_k(votes, right):
  votes = [None if v == '?' else v for v in votes]
  for k in range(1, len(votes) + 1):
    subsets = itertools.combinations(votes, k)
    expected = np.mean([elected(own, right) for own in subsets])
    got = answers.consensus([votes], [set(right)], k).value
    assert got == pytest.approx(100 * expected, abs=1e-10)


def test_a_vote_of_one_is_pass_at_1_and_many_samples_are_no_trouble():
  rng = np.random.default_rng(0)
  votes = [rng.integers(0, spread, 64).tolist() for spread in (3, 8, 60)]
  gold = [{0}, {1}, {2}]
  correct = [[v in right for v in own] for own, right in zip(votes, gold)]
  np.testing.assert_allclose(
    answers.consensus(votes, gold, 1).per_example,
    answers.pass_at_1(correct).per_example,
  )
  whole = answers.consensus(votes, gold).per_example / 100
  expected = [elected(own, right) for own, right in zip(votes, gold)]
  np.testing.assert_allclose(whole, expected, atol=1e-12)
  part = answers.consensus(votes, gold, 32).per_example
  drawn = [
    np.mean([elected(rng.choice(own, 32, False), right) for _ in range(2000)])
    for own, right in zip(votes, gold)
  ]
  np.testing.assert_allclose(part / 100, drawn, atol=0.04)


def test_equal_numbers_vote_together():
  said = ['#### 18', '#### 18.00', '#### $17', 'no idea']
  votes = [answers.gsm8k_answer(t) for t in said]
  assert answers.consensus([votes], [{decimal.Decimal(18)}]).value == 100


@pytest.mark.parametrize(
  'given, gold, k, message',
  [
    ([[1, 2]], [{1}], 3, r'\[0\] have less than 3'),
    ([[1], []], [{1}, {1}], None, r'\[1\] have less than 1'),
    ([], [], None, '0 problems'),
    ([[1]], [], None, 'answers of 1 problems and the gold of 0'),
    ([[1]], [{1}], 0, 'k=0'),
  ],
)
def test_bad_votes_name_the_problem(given, gold, k, message):
  with pytest.raises(ValueError, match=message):
    answers.consensus(given, gold, k)
