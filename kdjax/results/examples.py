"""What a system scored on each example, as sums that can be resampled."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax import evaluation
from kdjax.evaluation import bootstrap
from kdjax.results import reading

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Examples:
  """A system's responses to N examples, in the order of the set.

  Attributes:
    ids: [N], of the examples.
    inputs: [N], the prompts' texts.
    texts: [N], what the system said.
    references: [N], the acceptable texts of each.
    lengths: [N], tokens of each response; 0 where that isn't known.
    gold_lengths: [N], tokens of each gold response, likewise.
    scores: [N] by metric, NaN where there is none.
  """

  ids: tuple[Any, ...]
  inputs: tuple[str, ...]
  texts: tuple[str, ...]
  references: tuple[list[str], ...]
  lengths: np.ndarray
  gold_lengths: np.ndarray
  scores: Mapping[str, np.ndarray]


def read_examples(path: pathlib.Path, system: str) -> Examples | None:
  """Returns a system's responses in an examples.jsonl; None if it has none.

  Raises:
    ValueError: a line isn't an example; the message names it.
  """
  if not path.exists():
    return None
  lines = []
  for number, line in enumerate(reading.read_lines(path), 1):
    try:
      response = line['responses'].get(system)
      if response is not None:
        scores = {k: _number(v) for k, v in response['scores'].items()}
        # A sweep's runs share their prompts, which may be long.
        found = line['id'], sys.intern(line['input']), response['text']
        lengths = response.get('length', 0), line.get('gold_length', 0)
        lines.append((*found, line['references'], *lengths, scores))
    except (KeyError, AttributeError, TypeError) as error:
      raise ValueError(
        f'{path}, line {number}: not an example ({error!r}); expected id, '
        'input, references, and responses with text and scores.'
      ) from error
  if not lines:
    return None
  *columns, lengths, gold_lengths, scores = zip(*lines)
  names = dict.fromkeys(name for each in scores for name in each)
  return Examples(
    *columns,
    lengths=np.array(lengths, np.float64),
    gold_lengths=np.array(gold_lengths, np.float64),
    scores={
      name: np.array([each.get(name, np.nan) for each in scores])
      for name in names
    },
  )


def _number(value: float | None) -> float:
  return np.nan if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class System:
  """A system that was scored: its numbers, and what it said.

  Attributes:
    name: 'teacher', 'student before' or 'student after'.
    scores: of all examples together, as results.json holds them.
    folder: where its examples.jsonl stands, if anywhere.
    key: what the system is called there.
  """

  name: str
  scores: Mapping[str, float]
  folder: pathlib.Path
  key: str

  @functools.cached_property
  def examples(self) -> Examples | None:
    """What it said to each example, read when asked for."""
    return read_examples(self.folder / 'examples.jsonl', self.key)

  @functools.cached_property
  def _resampled(self) -> dict[str, np.ndarray | None]:
    return {}

  def resampled(self, metric: str) -> np.ndarray | None:
    """The metric [R] over resamples of the examples.

    Systems with the same examples are resampled together. None where the
    examples don't make up the metric.
    """
    if metric not in self._resampled:
      scores = None
      if self.examples is not None:
        scores = per_example(self.examples, metric, self.scores[metric])
      if scores is not None:
        sums = bootstrap.resampled_sums(scores.statistics, RESAMPLES)
        moved = self.scores[metric] - scores.value
        scores = np.asarray(scores.aggregate(sums)) + moved
      self._resampled[metric] = scores
    return self._resampled[metric]


def per_example(
  examples: Examples, metric: str, value: float
) -> evaluation.Scores | None:
  """Returns the sums that make up a metric: those that give its value.

  Most metrics are means over the examples, divergences are means over the
  tokens of the responses or of the gold ones. The others, such as BLEU, are
  scored again from the texts. None where nothing gives it.
  """
  scores = examples.scores.get(metric)
  if scores is None or np.isnan(scores).any():
    return None
  for weights in (
    np.ones(len(scores)),
    examples.lengths,
    examples.gold_lengths,
  ):
    sums = np.stack([weights * scores, weights], axis=-1)
    if weights.all() and _agree(mean := evaluation.Scores(sums, _mean), value):
      return mean
  if metric in evaluation.METRICS:
    texts, inputs = examples.texts, examples.inputs
    again = evaluation.score(metric, texts, examples.references, inputs=inputs)
    return again if _agree(again, value) else None
  return None


def _agree(scores: evaluation.Scores, value: float) -> bool:
  # examples.jsonl has four digits.
  return bool(np.isclose(scores.value, value, rtol=1e-4, atol=1e-4))


def _mean(sums: np.ndarray) -> np.ndarray:
  return sums[..., 0] / sums[..., 1]
