"""Buckets hold the examples of their lengths, scored as a corpus."""

import numpy as np
import pytest

from kdjax.evaluation import bootstrap, buckets, text


def test_each_bucket_is_scored_as_its_examples_alone():
  said = ['a b c d e', 'a b', 'c c c c d', 'x'] * 3
  refs = [('a b c d e f',), ('a b c',), ('c c c c d',), ('y',)] * 3
  lengths = np.array([5, 0, 6, 40] * 3)
  found = buckets.by_length(text.score('bleu1', said, refs), lengths)
  assert [(b.low, b.high, b.examples) for b in found] == [
    (0, 5, 6),
    (6, 10, 3),
    (11, None, 3),
  ]
  for bucket in found:
    high = np.inf if bucket.high is None else bucket.high
    rows = [i for i, n in enumerate(lengths) if bucket.low <= n <= high]
    own = text.score('bleu1', [said[i] for i in rows], [refs[i] for i in rows])
    assert bucket.score == bootstrap.interval(own)
    assert bucket.score.low <= bucket.score.value <= bucket.score.high


def test_an_empty_bucket_has_no_score():
  scores = text.score('exact_match', ['a', 'b'], [('a',), ('a',)])
  first, last = buckets.by_length(scores, [3, 4], edges=(2,))
  assert (first.examples, first.score) == (0, None)
  assert last.score.value == 50


@pytest.mark.parametrize(
  'lengths, edges, message',
  [
    ([1], (5, 10), r'\(1,\) for 2 examples'),
    ([1, 2], (10, 5), r'\(10, 5\)'),
    ([1, 2], (5, 5), 'rise'),
  ],
)
def test_bad_buckets_name_the_value(lengths, edges, message):
  scores = text.score('exact_match', ['a', 'b'], [('a',), ('a',)])
  with pytest.raises(ValueError, match=message):
    buckets.by_length(scores, lengths, edges)
