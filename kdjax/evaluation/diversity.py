"""How varied texts are: distinct n-grams and self-BLEU.

The score of one text depends on the others here, which no sum over examples
says. What each one adds is therefore fixed on the whole set, and a bootstrap
resamples these shares: recounted, resamples would look less varied than the
set itself, since each repeats examples.
"""

import collections
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kdjax.evaluation.bleu import words
from kdjax.evaluation.scores import Scores, from_ratio, from_values


def _shares(grams: Sequence[Sequence[tuple[str, ...]]]) -> Scores:
  """100 unique / total. An n-gram of k examples gives 1/k to each of them."""
  found_in = collections.Counter(g for own in grams for g in set(own))
  shares = [sum(1.0 / found_in[g] for g in set(own)) for own in grams]
  return from_ratio(shares, [len(own) for own in grams])


def distinct(predictions, references, *, n: int) -> Scores:
  """Unique n-grams of all predictions over their count, within predictions.

  Words are lower-cased and split from punctuation.

  Li et al., "A diversity-promoting objective function for neural conversation
  models", 2016, section 5.1.
  """
  del references
  grams = []
  for prediction in predictions:
    said = re.findall(r'\w+|[^\w\s]+', prediction.lower())
    grams.append(list(zip(*(said[i:] for i in range(n)))))
  return _shares(grams)


def distinct_concatenated(predictions, references, *, n: int) -> Scores:
  """Unique n-grams over their count in the concatenation of all predictions.

  LLMR's convention: as `distinct`, but n-grams cross from one text into the
  next, and belong to the text that they start in.
  """
  del references
  said = [words(prediction) for prediction in predictions]
  joined = [word for each in said for word in each]
  grams = list(zip(*(joined[i:] for i in range(n))))
  ends = np.cumsum([0, *map(len, said)])
  return _shares([grams[a:b] for a, b in zip(ends, ends[1:])])


def _order_counts(tokens: Sequence[str], order: int) -> collections.Counter:
  grams = zip(*(tokens[i:] for i in range(order)))
  return collections.Counter(grams)


def _largest_two(
  counts: Iterable[collections.Counter],
) -> dict[tuple[str, ...], tuple[int, int]]:
  """The largest and second largest count of each n-gram among texts."""
  found = {}
  for each in counts:
    for gram, count in each.items():
      first, second = found.get(gram, (0, 0))
      found[gram] = (max(first, count), max(second, min(first, count)))
  return found


def _clipped(
  own: collections.Counter, largest: dict[tuple[str, ...], tuple[int, int]]
) -> int:
  """How many n-grams of a text the others have, each as often as one of them.

  The largest count of an n-gram is the text's own only where nobody has more:
  then the others' largest is the second.
  """
  return sum(
    min(count, largest[gram][largest[gram][0] == count])
    for gram, count in own.items()
  )


def _closest(lengths: collections.Counter, own: int) -> int:
  """The length closest to a text's own among the others; the shorter first."""
  others = (n for n, count in lengths.items() if count > (n == own))
  return min(others, key=lambda n: (abs(n - own), n))


def _against_the_others(
  texts: Sequence[str], tokenize: Callable[[str], str], order: int = 4
) -> list[float]:
  """BLEU of each text with all the others as references, from 0 to 1.

  Clipped counts against the others need the two largest counts of an n-gram
  alone, so that this is linear in the texts.
  """
  import sacrebleu

  tokens = [tokenize(text).split() for text in texts]
  lengths = collections.Counter(map(len, tokens))
  counts = [[_order_counts(t, n + 1) for t in tokens] for n in range(order)]
  largest = [_largest_two(each) for each in counts]
  copies = collections.Counter(texts)

  def value(i):
    if copies[texts[i]] > 1:  # Also where both are empty.
      return 1.0
    length = len(tokens[i])
    bleu = sacrebleu.BLEU.compute_bleu(
      [_clipped(own[i], most) for own, most in zip(counts, largest)],
      [max(length - n, 0) for n in range(order)],
      length,
      _closest(lengths, length),
      smooth_method='exp',
      effective_order=True,
    )
    return bleu.score / 100.0

  return [value(i) for i in range(len(texts))]


def _tokenizer() -> Callable[[str], str]:
  from sacrebleu.tokenizers import tokenizer_13a

  return tokenizer_13a.Tokenizer13a()


def self_bleu(groups: Sequence[Sequence[str]]) -> Scores:
  """Mean BLEU of each sample of a prompt against its other samples.

  100 means that a prompt's samples are all the same, and 0 that none shares a
  word with another. The mean is over the samples of a prompt, then prompts. Zhu
  et al. leave tokens and smoothing open: they are `sentence_bleu`'s here. GKD
  measures diversity by it, over temperatures.

  Args:
    groups: N lists, the samples of each prompt.

  Returns:
    Scores of N prompts.

  Raises:
    ValueError: for no prompts, or one with less than two samples.

  Zhu et al., "Texygen: a benchmarking platform for text generation models",
  2018, section 3.3.
  """
  short = [i for i, texts in enumerate(groups) if len(texts) < 2]
  if short or len(groups) == 0:
    raise ValueError(
      f'self_bleu got {len(groups)} prompts, of which {short[:8]} have less '
      'than two samples; expected two samples or more of each.'
    )
  tokenize = _tokenizer()
  return from_values(
    [np.mean(_against_the_others(texts, tokenize)) for texts in groups]
  )


def self_bleu_of_outputs(predictions, references) -> Scores:
  """Mean BLEU of each prediction against all the others, as `self_bleu`.

  The predictions are one group; a single one scores 0.
  """
  del references
  if len(predictions) < 2:
    return from_values([0.0] * len(predictions))
  return from_values(_against_the_others(predictions, _tokenizer()))
