"""BLEU-n and iBLEU in the convention of LLMR: NLTK's corpus BLEU.

Texts are lower-cased and split by NLTK's `wordpunct_tokenize`, the weights are
uniform over 1..n, and nothing is smoothed: without a single n-gram in common
the corpus scores 0. Not comparable with SacreBLEU's.
"""

import numpy as np

from kdjax.evaluation.scores import Scores


def words(text: str) -> list[str]:
  """Returns the lower-cased runs of letters, and of punctuation."""
  from nltk.tokenize import wordpunct_tokenize

  return wordpunct_tokenize(text.lower())


def _statistics(prediction, texts, n) -> list[int]:
  """Matches of orders 1..n, n-grams of orders 1..n, length, closest length."""
  from nltk.translate import bleu_score

  said, golds = words(prediction), [words(text) for text in texts]
  precisions = [
    bleu_score.modified_precision(golds, said, order)
    for order in range(1, n + 1)
  ]
  return [
    *(p.numerator for p in precisions),
    *(p.denominator for p in precisions),
    len(said),
    bleu_score.closest_ref_length(golds, len(said)),
  ]


def _from_sums(sums: np.ndarray, n: int) -> np.ndarray:
  """100 BP exp(mean over orders of log precision), for sums [..., 2n + 2]."""
  matches, grams = sums[..., :n], sums[..., n : 2 * n]
  length, closest = sums[..., 2 * n], sums[..., 2 * n + 1]
  # An order without a match makes the score 0, whatever stands here for it.
  logs = np.log(np.maximum(matches, 1.0) / np.maximum(grams, 1.0)).mean(-1)
  brevity = np.minimum(0.0, 1.0 - closest / np.maximum(length, 1.0))
  found = (matches > 0).all(-1)
  return np.where(found, 100.0 * np.exp(logs + brevity), 0.0)


def corpus_bleu(predictions, references, *, n: int) -> Scores:
  """NLTK's corpus BLEU of orders 1..n, as LLMR reports it.

  Papineni et al., "BLEU: a method for automatic evaluation of machine
  translation", 2002, section 2.3.
  """
  statistics = np.array(
    [
      _statistics(prediction, texts, n)
      for prediction, texts in zip(predictions, references)
    ],
    np.float64,
  )
  return Scores(statistics, lambda sums: _from_sums(sums, n))


def ibleu(
  predictions, references, *, inputs, alpha: float = 0.1, n: int = 4
) -> Scores:
  """(1 - α) BLEU-n(references) - α BLEU-n(inputs), for paraphrases.

  The second term punishes copies of the input. Both are corpus scores.

  Sun and Zhou, "Joint learning of a dual SMT system for paraphrase generation",
  2012, section 2.3, with α on the other term.
  """
  gold = corpus_bleu(predictions, references, n=n).statistics
  copied = corpus_bleu(predictions, [(text,) for text in inputs], n=n)
  width = gold.shape[-1]

  def aggregate(sums):
    against_gold = _from_sums(sums[..., :width], n)
    against_inputs = _from_sums(sums[..., width:], n)
    return (1.0 - alpha) * against_gold - alpha * against_inputs

  return Scores(np.concatenate([gold, copied.statistics], -1), aggregate)
