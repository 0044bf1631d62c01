"""BLEU, chrF and TER as SacreBLEU computes them."""

import numpy as np

from kdjax.evaluation.scores import Scores, from_values


def _corpus(metric, predictions, references) -> Scores:
  """Scores of a sacrebleu metric, by the hooks of its own bootstrap."""
  most = max(len(texts) for texts in references)
  # sacrebleu wants one list a reference position, None where there are fewer.
  columns = [
    [texts[i] if i < len(texts) else None for texts in references]
    for i in range(most)
  ]
  statistics = np.asarray(
    metric._extract_corpus_statistics(predictions, columns), np.float64
  )

  def aggregate(sums):
    rows = sums.reshape(-1, sums.shape[-1]).tolist()
    scores = [metric._compute_score_from_stats(row).score for row in rows]
    return np.reshape(scores, sums.shape[:-1])

  return Scores(statistics, aggregate)


def bleu(predictions, references) -> Scores:
  """SacreBLEU's corpus BLEU with its default settings (13a, exp smoothing)."""
  import sacrebleu

  return _corpus(sacrebleu.BLEU(force=True), predictions, references)


def sentence_bleu(predictions, references) -> Scores:
  """Mean of SacreBLEU's sentence BLEU.

  Tokens of 13a, exp smoothing, and the effective order: a text of two words is
  scored by its 1-grams and 2-grams.
  """
  import sacrebleu

  metric = sacrebleu.BLEU(effective_order=True)
  return from_values(
    [
      metric.sentence_score(prediction, list(texts)).score / 100.0
      for prediction, texts in zip(predictions, references)
    ]
  )


def chrf(predictions, references) -> Scores:
  """SacreBLEU's corpus chrF2."""
  import sacrebleu

  return _corpus(sacrebleu.CHRF(), predictions, references)


def ter(predictions, references) -> Scores:
  """SacreBLEU's corpus translation edit rate. Lower is better."""
  import sacrebleu

  return _corpus(sacrebleu.TER(), predictions, references)
