"""ROUGE as the package rouge_score computes it."""

import functools

from kdjax.evaluation.scores import Scores, from_values


@functools.cache
def _scorer(kind: str, use_stemmer: bool):
  from nltk.stem import porter
  from rouge_score import rouge_scorer, tokenize

  class Stemmer:
    # rouge_score stems every word anew, nearly all of its time.
    stem = staticmethod(functools.cache(porter.PorterStemmer().stem))

  class Tokenizer:
    def tokenize(self, text):
      return tokenize.tokenize(text, Stemmer if use_stemmer else None)

  return rouge_scorer.RougeScorer([kind], tokenizer=Tokenizer())


def rouge(predictions, references, *, kind: str, use_stemmer=True) -> Scores:
  """Mean F-measure of rouge_score's `kind`, the best reference of each.

  Lin, "ROUGE: a package for automatic evaluation of summaries", 2004.
  """
  scorer = _scorer(kind, use_stemmer)
  return from_values(
    [
      scorer.score_multi(texts, prediction)[kind].fmeasure
      for prediction, texts in zip(predictions, references)
    ]
  )
