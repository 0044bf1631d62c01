"""BERTScore over MiniLM: texts compared by the meaning of their tokens."""

from collections.abc import Sequence

import numpy as np

from kdjax.evaluation import minilm
from kdjax.evaluation.scores import Scores, from_values

PARTS = ('precision', 'recall', 'f1')
# Examples embedded at a time: a million tokens would take 1.5 GB.
CHUNK = 512


def _match(said: np.ndarray, gold: np.ndarray) -> tuple[float, float, float]:
  """Greedy precision, recall and F1 of unit vectors [n, D] and [m, D]."""
  if not len(said) or not len(gold):
    return (0.0, 0.0, 0.0)
  similarity = said @ gold.T
  precision = float(similarity.max(1).mean())
  recall = float(similarity.max(0).mean())
  total = precision + recall
  return precision, recall, 2 * precision * recall / total if total else 0.0


def _unit_vectors(texts: Sequence[str]) -> dict[str, np.ndarray]:
  texts = list(dict.fromkeys(texts))
  norm = lambda x: np.linalg.norm(x, axis=-1, keepdims=True)
  return {t: x / norm(x) for t, x in zip(texts, minilm.embed(texts))}


def bertscore(predictions, references, *, part: str = 'f1') -> Scores:
  """Mean of BERTScore's F1, precision or recall, the best reference of each.

  Every token takes its most similar one of the other text, by the cosine of
  MiniLM's last hidden states. Tokens weigh the same, [CLS] and [SEP] count
  nowhere, and nothing is rescaled to a baseline: unrelated texts score above 0
  (14 for shuffled synopses of debsum). A text without tokens scores 0. Not
  comparable with published numbers, which come from other encoders.

  Zhang et al., "BERTScore: evaluating text generation with BERT", 2020,
  section 3.

  Raises:
    ValueError: the encoder is not installed, or `part` is none of PARTS.
  """
  if part not in PARTS:
    raise ValueError(f'part is {part!r}; expected one of {PARTS}.')
  values = []
  for start in range(0, len(predictions), CHUNK):
    pairs = list(zip(predictions, references))[start : start + CHUNK]
    vectors = _unit_vectors([t for said, gold in pairs for t in (said, *gold)])
    values += [
      max(_match(vectors[said], vectors[t])[PARTS.index(part)] for t in gold)
      for said, gold in pairs
    ]
  return from_values(values)
