"""METEOR is NLTK's, with synonyms from WordNet or without any."""

import nltk
import pytest
from nltk.corpus import wordnet
from nltk.tokenize import wordpunct_tokenize
from nltk.translate import meteor_score

from kdjax.evaluation import meteor, text
from tests.evaluation import cases

words = lambda said: wordpunct_tokenize(said.lower())


class Lemma:
  def __init__(self, name):
    self.name = lambda: name


class Synset:
  def __init__(self, *names):
    self.lemmas = lambda: [Lemma(name) for name in names]


class Dictionary:
  """WordNet's interface over two synonyms."""

  def synsets(self, word):
    return [Synset('dog', 'hound')] if word in ('dog', 'hound') else []


def by_nltk(dictionary):
  return [
    100
    * meteor_score.meteor_score(
      [words(t) for t in texts], words(said), wordnet=dictionary
    )
    for said, texts in zip(cases.PREDICTIONS, cases.REFERENCES)
  ]


def test_synonyms_are_those_of_the_dictionary(monkeypatch):
  monkeypatch.setattr(meteor, 'wordnet', Dictionary)
  found = meteor.meteor(cases.PREDICTIONS, cases.REFERENCES)
  assert found.per_example.tolist() == pytest.approx(by_nltk(Dictionary()))
  pair = ['a hound'], [('a dog',)]
  assert meteor.meteor(*pair).value > meteor.meteor(*pair, synonyms=False).value


def test_without_synonyms_words_match_by_form_and_stem():
  class Empty:
    synsets = staticmethod(lambda word: [])

  found = text.score('meteor_no_synonyms', cases.PREDICTIONS, cases.REFERENCES)
  assert found.per_example.tolist() == pytest.approx(by_nltk(Empty()))
  # By hand: 2 matches of 2 and 3 words in one chunk; libraries by its stem.
  mean = 1.0 * (2 / 3) / (0.9 * 1.0 + 0.1 * (2 / 3))
  assert text.score(
    'meteor_no_synonyms', ['Old library'], [('old libraries burn',)]
  ).value == pytest.approx(100 * mean * (1 - 0.5 * (1 / 2) ** 3))


def test_without_wordnet_the_error_says_how_to_get_it(monkeypatch):
  def absent():
    raise LookupError

  monkeypatch.setattr(
    type(wordnet), 'ensure_loaded', lambda self: absent(), raising=False
  )
  with pytest.raises(ValueError, match='nltk.downloader wordnet.*no_synonyms'):
    text.score('meteor', ['a'], [('a',)])


@pytest.mark.skipif(
  bool(text.missing(['meteor'])), reason=f'no WordNet in {nltk.data.path}'
)
def test_with_wordnet_it_is_nltk():
  scores = text.score('meteor', cases.PREDICTIONS, cases.REFERENCES)
  assert scores.per_example.tolist() == pytest.approx(by_nltk(wordnet))
