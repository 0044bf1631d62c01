"""Final answers: GSM8K's format, pass@1 and the majority vote of cons@k."""

import collections
import decimal
import math
import re
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from kdjax.evaluation.scores import Scores, from_values

_NUMBER = r'(?:-?\$?|\$-)(?:\d[\d,]*(?:\.\d+)?|\.\d+)'
_MARKED = re.compile(r'####\s*(' + _NUMBER + ')')
_ANY = re.compile(r'(?<![\w.])' + _NUMBER)


def gsm8k_answer(
  text: str, *, last_number: bool = False
) -> decimal.Decimal | None:
  """Returns the number after the first '####', or None.

  Commas and dollar signs are dropped, and 18.00 equals 18. With `last_number`,
  a text without '####' answers with its last number.
  """
  match = _MARKED.search(text)
  found = match.group(1) if match else None
  if found is None and last_number:
    numbers = _ANY.findall(text)
    found = numbers[-1] if numbers else None
  if found is None:
    return None
  return decimal.Decimal(re.sub(r'[$,]', '', found))


def gsm8k_accuracy(predictions, references, *, last_number=False) -> Scores:
  """Share of right final answers. A reference may be a bare number.

  Cobbe et al., "Training verifiers to solve math word problems", 2021.
  """
  values = []
  for prediction, texts in zip(predictions, references):
    answer = gsm8k_answer(prediction, last_number=last_number)
    gold = {gsm8k_answer(text, last_number=True) for text in texts}
    values.append(answer is not None and answer in gold)
  return from_values(values)


def pass_at_1(correct: Sequence[Sequence[bool]]) -> Scores:
  """Share of right samples, averaged over the samples of a problem.

  Args:
    correct: N lists, whether each sample of a problem is right.

  Returns:
    Scores of N problems.

  Raises:
    ValueError: for a problem without samples.

  DeepSeek-AI, "DeepSeek-R1", 2025, section 3 (64 samples at temperature 0.6 and
  top-p 0.95).
  """
  _check('pass_at_1', correct, 1)
  return from_values([np.mean(own) for own in correct])


def consensus(
  answers: Sequence[Sequence[Hashable | None]],
  gold: Sequence[Collection[Hashable]],
  k: int | None = None,
) -> Scores:
  """cons@k: share of problems that a majority vote of k samples gets right.

  Of answers with equally many votes each wins with the same probability, and
  the score is its expectation: a tie of a right and a wrong answer counts 1/2.
  A sample without an answer, None, casts no vote. With k below the number of
  samples, the score is the mean over all subsets of k samples, so that it is
  unbiased and has no more noise than it must.

  >>> consensus([[7, 7, 5], [1, 2, None]], [{7}, {2}]).per_example.tolist()
  [100.0, 50.0]

  Args:
    answers: N lists, the final answer of each sample of a problem.
    gold: N sets (or tuples) of right answers.
    k: samples a vote; None for all of each problem.

  Returns:
    Scores of N problems.

  Raises:
    ValueError: for a problem with fewer than k samples, or without any.

  Wang et al., "Self-consistency improves chain of thought reasoning in language
  models", 2023; DeepSeek-AI, "DeepSeek-R1", 2025, section 3 (cons@64).
  """
  _check('consensus', answers, 1 if k is None else k)
  if len(answers) != len(gold):
    raise ValueError(
      f'consensus got the answers of {len(answers)} problems and the gold of '
      f'{len(gold)}; expected as many of both.'
    )
  return from_values(
    [
      _majority(collections.Counter(own), set(right), k or len(own))
      for own, right in zip(answers, gold)
    ]
  )


def _check(name: str, groups: Sequence[Sequence], least: int) -> None:
  if least < 1:
    raise ValueError(f'{name} got k={least}; expected 1 or more.')
  short = [i for i, own in enumerate(groups) if len(own) < least]
  if short or len(groups) == 0:
    raise ValueError(
      f'{name} got {len(groups)} problems, of which {short[:8]} have less than '
      f'{least} samples; expected at least that many of each.'
    )


def _majority(votes: collections.Counter, right: set, k: int) -> float:
  """Probability that k of the samples, drawn at once, elect a right answer."""
  silent = votes.pop(None, 0)
  ways = 0.0
  for answer in right & set(votes):
    others = [count for other, count in votes.items() if other != answer]
    for won in range(1, min(votes[answer], k) + 1):
      table = _draws(others, silent, won, k - won)
      shares = table[:, k - won] / np.arange(1, len(table) + 1)
      ways += math.comb(votes[answer], won) * shares.sum()
  return ways / math.comb(sum(votes.values()) + silent, k)


def _draws(
  counts: Sequence[int], silent: int, most: int, total: int
) -> np.ndarray:
  """Ways [ties, drawn] to draw 0..total of the others, none above `most`.

  Row t counts the draws in which t other answers have exactly `most` votes.
  """
  binomials = lambda n, up_to: [
    float(math.comb(n, i)) for i in range(min(n, up_to) + 1)
  ]
  table = np.zeros((total // most + 1, total + 1))
  first = binomials(silent, total)
  table[0, : len(first)] = first
  for count in counts:
    below = binomials(count, min(most - 1, total))
    grown = np.zeros_like(table)
    for i, ways in enumerate(below):
      grown[:, i:] += ways * table[:, : total + 1 - i]
    if count >= most <= total:
      grown[1:, most:] += (
        math.comb(count, most) * table[:-1, : total + 1 - most]
      )
    table = grown
  return table
