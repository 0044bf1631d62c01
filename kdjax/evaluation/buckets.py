"""A metric by the length of the gold text, as DPKD and MiniLLM report it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdjax.evaluation import bootstrap
from kdjax.evaluation.scores import Scores


@dataclasses.dataclass(frozen=True)
class Bucket:
  """The score of the examples with low to high words.

  Attributes:
    low: the least length.
    high: the largest length, included; None for no limit.
    examples: how many there are.
    score: their score and the ends of its bootstrap interval; None for none.
  """

  low: int
  high: int | None
  examples: int
  score: bootstrap.Interval | None


def by_length(
  scores: Scores,
  lengths: Sequence[int],
  edges: Sequence[int] = (5, 10),
  *,
  resamples: int = 1000,
  seed: int = 0,
) -> list[Bucket]:
  """A metric by the length of the references.

  Args:
    scores: of N examples.
    lengths: [N], words of each example's reference.
    edges: the largest length of each bucket but the last, rising. MiniLLM's
      are the default: [0, 5], [6, 10], [11, inf). DPKD's are (30, 70).
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Returns:
    One bucket more than there are edges.

  Raises:
    ValueError: for as many lengths as there are no examples, or edges that
      don't rise.

  Gu et al., "MiniLLM: knowledge distillation of large language models", 2024,
  section 3.3; Li et al., "Direct preference knowledge distillation for large
  language models", 2024.
  """
  lengths = np.asarray(lengths)
  if lengths.shape != (len(scores.statistics),):
    raise ValueError(
      f'by_length got lengths of the shape {lengths.shape} for '
      f'{len(scores.statistics)} examples; expected one length per example.'
    )
  if list(edges) != sorted(set(edges)) or min(edges, default=0) < 0:
    raise ValueError(
      f'by_length got the edges {tuple(edges)}; expected lengths that rise, '
      'such as (5, 10).'
    )
  lows = [0, *(edge + 1 for edge in edges)]
  buckets = []
  for low, high in zip(lows, [*edges, None]):
    rows = (
      lengths >= low if high is None else (lengths >= low) & (lengths <= high)
    )
    own = Scores(scores.statistics[rows], scores.aggregate)
    count = int(rows.sum())
    score = None
    if count:
      score = bootstrap.interval(own, resamples=resamples, seed=seed)
    buckets.append(Bucket(low, high, count, score))
  return buckets
