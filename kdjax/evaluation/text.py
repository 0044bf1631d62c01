"""Generation metrics by name: texts against lists of acceptable references.

Every metric returns `Scores`: statistics of each example and the function that
turns their sum into the corpus score. So a bootstrap resamples examples and
recomputes the corpus score exactly, even where that isn't a mean over examples
(BLEU, chrF, TER). All scores are percentages.

To add a metric, write a function of (predictions, references), enter it in
`METRICS`, and say in `CONVENTIONS` what its numbers may be compared with; where
less is better, also in `LOWER_IS_BETTER`. One that reads the prompts too takes
`inputs` by name.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

from kdjax.evaluation import meteor as meteors
from kdjax.evaluation import minilm
from kdjax.evaluation.answers import (
  consensus,
  gsm8k_accuracy,
  gsm8k_answer,
  pass_at_1,
)
from kdjax.evaluation.bertscore import bertscore
from kdjax.evaluation.bleu import corpus_bleu, ibleu
from kdjax.evaluation.diversity import (
  distinct,
  distinct_concatenated,
  self_bleu,
  self_bleu_of_outputs,
)
from kdjax.evaluation.matching import (
  edit_distance,
  exact_match,
  exact_match_normalized,
  phoneme_error_rate,
)
from kdjax.evaluation.meteor import meteor
from kdjax.evaluation.rouge import rouge
from kdjax.evaluation.sacrebleu_scores import bleu, chrf, sentence_bleu, ter
from kdjax.evaluation.scores import (
  Scores,
  from_ratio,
  from_values,
  percentage,
  ratio,
)

__all__ = [
  'CONVENTIONS',
  'LOWER_IS_BETTER',
  'METRICS',
  'Scores',
  'check_names',
  'consensus',
  'edit_distance',
  'from_ratio',
  'from_values',
  'gsm8k_answer',
  'missing',
  'needs_inputs',
  'pass_at_1',
  'percentage',
  'ratio',
  'score',
  'self_bleu',
]

METRICS: dict[str, Callable[..., Scores]] = {
  'rouge1': functools.partial(rouge, kind='rouge1'),
  'rouge2': functools.partial(rouge, kind='rouge2'),
  'rougeL': functools.partial(rouge, kind='rougeL'),
  'bleu': bleu,
  'sentence_bleu': sentence_bleu,
  'bleu1': functools.partial(corpus_bleu, n=1),
  'bleu2': functools.partial(corpus_bleu, n=2),
  'bleu3': functools.partial(corpus_bleu, n=3),
  'bleu4': functools.partial(corpus_bleu, n=4),
  'ibleu': ibleu,
  'self_bleu': self_bleu_of_outputs,
  'chrf': chrf,
  'ter': ter,
  'meteor': meteor,
  'meteor_no_synonyms': functools.partial(meteor, synonyms=False),
  'bertscore_minilm': bertscore,
  'exact_match': exact_match,
  'exact_match_normalized': exact_match_normalized,
  'gsm8k_accuracy': gsm8k_accuracy,
  'gsm8k_accuracy_flexible': functools.partial(
    gsm8k_accuracy, last_number=True
  ),
  'distinct1': functools.partial(distinct, n=1),
  'distinct2': functools.partial(distinct, n=2),
  'distinct1_concatenated': functools.partial(distinct_concatenated, n=1),
  'distinct2_concatenated': functools.partial(distinct_concatenated, n=2),
  'phoneme_error_rate': phoneme_error_rate,
}

LOWER_IS_BETTER = frozenset({'self_bleu', 'ter', 'phoneme_error_rate'})

_ROUGE = 'mean F1 of rouge_score, stemmed, the best reference'
_NLTK = 'NLTK, lower case, wordpunct_tokenize, not smoothed'
_DISTINCT = 'unique over all, lower case, split from punctuation'

# What tells a metric from others that go by its name: numbers may be compared
# only within one line. Tables print them.
CONVENTIONS: dict[str, str] = {
  'rouge1': _ROUGE,
  'rouge2': _ROUGE,
  'rougeL': _ROUGE,
  'bleu': 'SacreBLEU over the corpus, 13a, exp smoothing, n = 4',
  'sentence_bleu': 'mean of SacreBLEU sentence scores, 13a, exp smoothing, '
  'effective order up to 4',
  'bleu1': f'over the corpus, {_NLTK}, n = 1 (LLMR)',
  'bleu2': f'over the corpus, {_NLTK}, uniform weights to n = 2 (LLMR)',
  'bleu3': f'over the corpus, {_NLTK}, uniform weights to n = 3 (LLMR)',
  'bleu4': f'over the corpus, {_NLTK}, uniform weights to n = 4 (LLMR)',
  'ibleu': '0.9 bleu4 - 0.1 bleu4 against the inputs',
  'self_bleu': 'mean of sentence_bleu of each output against all the others',
  'chrf': 'SacreBLEU chrF2 over the corpus',
  'ter': 'SacreBLEU over the corpus',
  'meteor': 'mean of NLTK, wordpunct_tokenize, with WordNet, the best '
  'reference; not METEOR 1.5',
  'meteor_no_synonyms': 'as meteor, matching only forms and stems',
  'bertscore_minilm': 'mean F1 over all-MiniLM-L6-v2, last layer, no idf, not '
  'rescaled, the best reference; no published numbers',
  'exact_match': 'strict except for white space, any reference',
  'exact_match_normalized': 'lower case, no punctuation, articles count, any '
  'reference (MiniLLM, DPKD)',
  'gsm8k_accuracy': 'the number after ####',
  'gsm8k_accuracy_flexible': 'the number after ####, or else the last number',
  'distinct1': f'words of the corpus, {_DISTINCT}',
  'distinct2': f'bigrams within outputs, {_DISTINCT} (f-distill)',
  'distinct1_concatenated': f'words of all outputs joined, {_DISTINCT} (LLMR)',
  'distinct2_concatenated': 'bigrams, also across the ends of outputs, '
  f'{_DISTINCT} (LLMR)',
  'phoneme_error_rate': 'edits over phones in all, the closest reference',
}

# What these need that kdjax doesn't bring: each raises ValueError without it.
_REQUIREMENTS: dict[str, Callable[[], object]] = {
  'meteor': meteors.wordnet,
  'bertscore_minilm': minilm.folder,
}


def needs_inputs(name: str) -> bool:
  """Whether a metric reads the prompts besides predictions and references."""
  return 'inputs' in inspect.signature(METRICS[name]).parameters


def missing(names: Sequence[str]) -> list[str]:
  """Returns what to install for the metrics of METRICS, a sentence each."""
  found = []
  for name in _REQUIREMENTS.keys() & set(names):
    try:
      _REQUIREMENTS[name]()
    except ValueError as error:
      found.append(str(error))
  return found


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError for unknown names, and for what they need and miss."""
  unknown = [name for name in names if name not in METRICS]
  if unknown:
    raise ValueError(
      f'Unknown metrics {unknown}. Allowed: {", ".join(METRICS)}.'
    )
  if lacking := missing(names):
    raise ValueError(' '.join(lacking))


def score(
  name: str,
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
  *,
  inputs: Sequence[str] | None = None,
  **options,
) -> Scores:
  """Scores predictions against the acceptable references of each.

  >>> score('exact_match', ['b', 'x'], [('a', 'b'), ('c',)]).value
  50.0

  Args:
    name: in METRICS.
    predictions: N texts.
    references: N tuples of texts.
    inputs: N texts, the prompts. Metrics that don't read them ignore them.
    **options: of the metric's function.

  Raises:
    ValueError: for an unknown name, no examples, an example without references,
      or a metric without what it needs.
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
  if needs_inputs(name):
    if inputs is None or len(inputs) != len(predictions):
      count = 'no' if inputs is None else len(inputs)
      raise ValueError(
        f'{name} reads the prompts too and got {count} inputs for '
        f'{len(predictions)} predictions; expected inputs=, a text each.'
      )
    options['inputs'] = list(inputs)
  return METRICS[name](list(predictions), list(references), **options)
