"""Generation metrics: texts against lists of acceptable references.

Every metric returns `Scores`: statistics of each example and the function that
turns their sum into the corpus score. So a bootstrap resamples examples and
recomputes the corpus score exactly, also where that is no mean over examples
(BLEU, chrF, TER). All scores are percentages.

To add a metric, write a function of (predictions, references) and enter it in
`METRICS`; where less is better, also in `LOWER_IS_BETTER`.
"""

import collections
import dataclasses
import decimal
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
  """One metric on N examples.

  Attributes:
    statistics: [N, K] float64, what each example adds to the sums.
    aggregate: maps sums of statistics [..., K] to scores [...].
  """

  statistics: np.ndarray
  aggregate: Callable[[np.ndarray], np.ndarray]

  @property
  def value(self) -> float:
    """The score of all examples together."""
    return float(self.aggregate(self.statistics.sum(0)))

  @property
  def per_example(self) -> np.ndarray:
    """The score [N] of each example on its own."""
    return self.aggregate(self.statistics)


def ratio(sums: np.ndarray) -> np.ndarray:
  """Returns `sums[..., 0] / sums[..., 1]`; over 0 it is 0 or 1 (as in TER)."""
  part, whole = sums[..., 0], sums[..., 1]
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(whole > 0, part / whole, np.where(part > 0, 1.0, 0.0))


def percentage(sums: np.ndarray) -> np.ndarray:
  """Returns 100 times the ratio of two sums."""
  return 100.0 * ratio(sums)


def from_ratio(parts: Sequence[float], wholes: Sequence[float]) -> Scores:
  """Scores of 100 Σ part / Σ whole."""
  statistics = np.stack(
    [np.asarray(parts, np.float64), np.asarray(wholes, np.float64)], axis=-1
  )
  return Scores(statistics, percentage)


def from_values(values: Sequence[float]) -> Scores:
  """Scores of 100 times the mean of one value an example."""
  return from_ratio(values, np.ones(len(values)))


@functools.cache
def _rouge_scorer(kind: str, use_stemmer: bool):
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
  scorer = _rouge_scorer(kind, use_stemmer)
  return from_values(
    [
      scorer.score_multi(texts, prediction)[kind].fmeasure
      for prediction, texts in zip(predictions, references)
    ]
  )


def _sacrebleu(metric, predictions, references) -> Scores:
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

  return _sacrebleu(sacrebleu.BLEU(force=True), predictions, references)


def chrf(predictions, references) -> Scores:
  """SacreBLEU's corpus chrF2."""
  import sacrebleu

  return _sacrebleu(sacrebleu.CHRF(), predictions, references)


def ter(predictions, references) -> Scores:
  """SacreBLEU's corpus translation edit rate. Lower is better."""
  import sacrebleu

  return _sacrebleu(sacrebleu.TER(), predictions, references)


def exact_match(predictions, references) -> Scores:
  """Share of predictions equal to a reference, up to white space."""
  return from_values(
    [
      ' '.join(prediction.split()) in {' '.join(t.split()) for t in texts}
      for prediction, texts in zip(predictions, references)
    ]
  )


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


def distinct(predictions, references, *, n: int) -> Scores:
  """Unique n-grams of all predictions over their count, within predictions.

  Words are lower-cased and split from punctuation. An n-gram found in k
  predictions gives 1/k to each, so that the sum is the number of unique ones.
  The bootstrap keeps these shares: recounted, resamples would lie below the
  score itself, since each repeats examples.

  Li et al., "A diversity-promoting objective function for neural conversation
  models", 2016, section 5.1.
  """
  del references
  grams = []
  for prediction in predictions:
    words = re.findall(r'\w+|[^\w\s]+', prediction.lower())
    grams.append(list(zip(*(words[i:] for i in range(n)))))
  found_in = collections.Counter(g for own in grams for g in set(own))
  shares = [sum(1.0 / found_in[g] for g in set(own)) for own in grams]
  return from_ratio(shares, [len(own) for own in grams])


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


METRICS: dict[str, Callable[..., Scores]] = {
  'rouge1': functools.partial(rouge, kind='rouge1'),
  'rouge2': functools.partial(rouge, kind='rouge2'),
  'rougeL': functools.partial(rouge, kind='rougeL'),
  'bleu': bleu,
  'chrf': chrf,
  'ter': ter,
  'exact_match': exact_match,
  'gsm8k_accuracy': gsm8k_accuracy,
  'gsm8k_accuracy_flexible': functools.partial(
    gsm8k_accuracy, last_number=True
  ),
  'distinct1': functools.partial(distinct, n=1),
  'distinct2': functools.partial(distinct, n=2),
  'phoneme_error_rate': phoneme_error_rate,
}

LOWER_IS_BETTER = frozenset({'ter', 'phoneme_error_rate'})


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError for names that are not in METRICS."""
  unknown = [name for name in names if name not in METRICS]
  if unknown:
    raise ValueError(
      f'Unknown metrics {unknown}. Allowed: {", ".join(METRICS)}.'
    )


def score(
  name: str,
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
  **options,
) -> Scores:
  """Scores predictions against the acceptable references of each.

  >>> score('exact_match', ['b', 'x'], [('a', 'b'), ('c',)]).value
  50.0

  Raises:
    ValueError: for an unknown name, no examples, or an example without
      references.
  """
  check_names([name])
  if not predictions or len(predictions) != len(references):
    raise ValueError(
      f'{name} got {len(predictions)} predictions and {len(references)} '
      'lists of references; expected as many of both, and at least one.'
    )
  for i, texts in enumerate(references):
    if isinstance(texts, str) or not texts:
      raise ValueError(
        f'{name}: the references of example {i} are {texts!r}; expected a '
        'tuple of at least one text.'
      )
  return METRICS[name](list(predictions), list(references), **options)
