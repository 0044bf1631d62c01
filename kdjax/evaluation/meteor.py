"""METEOR as NLTK computes it, with WordNet's synonyms or without any."""

import functools

from kdjax.evaluation.bleu import words
from kdjax.evaluation.scores import Scores, from_values


class _NoSynonyms:
  """Stands for WordNet where words match by form and stem alone."""

  def synsets(self, word):
    del word
    return ()


@functools.cache
def _stemmer():
  from nltk.stem import porter

  stemmer = porter.PorterStemmer()
  # NLTK stems every word of each pair anew.
  stemmer.stem = functools.cache(stemmer.stem)
  return stemmer


def wordnet():
  """Returns NLTK's WordNet.

  Raises:
    ValueError: NLTK doesn't find it.
  """
  import nltk
  from nltk.corpus import wordnet

  try:
    wordnet.ensure_loaded()
  except LookupError as error:
    raise ValueError(
      'meteor needs WordNet, which NLTK does not find in '
      f'{nltk.data.path}. Run `python -m nltk.downloader wordnet`, or take '
      'meteor_no_synonyms, which needs no data.'
    ) from error
  return wordnet


def meteor(predictions, references, *, synonyms=True) -> Scores:
  """Mean METEOR, the best reference of each.

  Words match by form, then by stem, then by synonym:

  F (1 - γ (chunks / matches)^β) with F = PR / (αP + (1 - α)R), α = 0.9, β = 3,
  γ = 0.5. Words are lower-cased and split from punctuation. The Java METEOR 1.5
  has other parameters and paraphrases besides: not comparable. NLTK looks for
  the synonyms of stems, and so misses those of words that aren't stems.

  Banerjee and Lavie, "METEOR: an automatic metric for MT evaluation with
  improved correlation with human judgments", 2005, with the parameters of Lavie
  and Agarwal, 2007.

  Raises:
    ValueError: `synonyms` without WordNet.
  """
  from nltk.translate import meteor_score

  dictionary = wordnet() if synonyms else _NoSynonyms()
  return from_values(
    [
      meteor_score.meteor_score(
        [words(text) for text in texts],
        words(prediction),
        stemmer=_stemmer(),
        wordnet=dictionary,
      )
      for prediction, texts in zip(predictions, references)
    ]
  )
