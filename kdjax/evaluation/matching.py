"""Whole texts against references: exact match and edit distance."""

import string
from collections.abc import Callable, Sequence

from kdjax.evaluation.scores import Scores, from_ratio, from_values


def _tidy(text: str) -> str:
  return ' '.join(text.split())


def _plain(text: str) -> str:
  lowered = text.lower().translate(str.maketrans('', '', string.punctuation))
  return _tidy(lowered)


def _equal(predictions, references, normalize: Callable[[str], str]) -> Scores:
  return from_values(
    [
      normalize(prediction) in {normalize(text) for text in texts}
      for prediction, texts in zip(predictions, references)
    ]
  )


def exact_match(predictions, references) -> Scores:
  """Share of predictions equal to a reference, up to white space."""
  return _equal(predictions, references, _tidy)


def exact_match_normalized(predictions, references) -> Scores:
  """Exact match in lower case, without ASCII punctuation; articles count.

  The convention of MiniLLM and DPKD. SQuAD's drops articles too.
  """
  return _equal(predictions, references, _plain)


def edit_distance(a: Sequence, b: Sequence) -> int:
  """Levenshtein distance: insertions, deletions and substitutions cost 1."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    diagonal, row[0] = row[0], i
    for j, y in enumerate(b, 1):
      diagonal, row[j] = (
        row[j],
        min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y)),
      )
  return row[-1]


def phoneme_error_rate(predictions, references) -> Scores:
  """Edits to the closest reference over its length, in space-separated phones.

  Of references equally close, the longest counts. Lower is better.
  """
  pairs = []
  for prediction, texts in zip(predictions, references):
    phones = prediction.split()
    options = [
      (edit_distance(phones, t.split()), len(t.split())) for t in texts
    ]
    pairs.append(min(options, key=lambda option: (option[0], -option[1])))
  return from_ratio(*zip(*pairs))
