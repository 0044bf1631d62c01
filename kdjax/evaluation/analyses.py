"""The analyses that `eval.analyses` names, ready for JSON."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kdjax import types
from kdjax.evaluation import (
  answers,
  bootstrap,
  buckets,
  coverage,
  exposure,
  loop,
  rollouts,
  sampled,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """What is analysed, and how.

  Attributes:
    results: of the set by system.
    batches: returns the batches of the set, anew at each call.
    evaluator: of the student.
    params: of the student.
    pair: the student and its teacher. Where one is missing, analyses that
      `need` it aren't for this subject.
    samples: k, of each prompt.
    temperatures: those of 'temperatures'.
    temperature: of 'answers', as is `top_p`.
    length_edges: see `buckets.by_length`.
    seed: of samples and bootstraps.
  """

  results: Mapping[str, loop.Result]
  batches: Callable[[], Iterable[tuple[types.Batch, int]]] | None = None
  evaluator: loop.Evaluator | None = None
  params: Any = None
  pair: rollouts.Pair | None = None
  samples: int = 5
  temperatures: Sequence[float] = ()
  temperature: float = 0.6
  top_p: float = 0.95
  length_edges: Sequence[int] = (5, 10)
  seed: int = 0


class Analysis(NamedTuple):
  """One analysis.

  Attributes:
    run: maps a subject to what `analyses.json` holds, by system.
    convention: one line that says what was computed.
    needs: the models that it samples or reads.
    groups: whether it compares the samples of a prompt.
  """

  run: Callable[[Subject], dict[str, Any]]
  convention: str
  needs: frozenset[str] = frozenset()
  groups: bool = False


def run(names: Sequence[str], subject: Subject) -> dict[str, dict[str, Any]]:
  """Returns the analyses by name and system, ready for JSON.

  What has no value, such as an error over one of zero, is None.
  """
  return {name: _plain(ANALYSES[name].run(subject)) for name in names}


def _exposure_bias(subject: Subject) -> dict[str, Any]:
  found = exposure.exposure_bias(
    subject.pair,
    subject.batches(),
    samples=subject.samples,
    seed=subject.seed,
  )
  return {
    'student': {
      'length': found.length,
      'ex_error': found.ex_error,
      'excess_error_low': found.low,
      'excess_error_high': found.high,
      'accumulated_error': found.accumulated_error,
      'student_divergence': found.student_divergence,
      'teacher_divergence': found.teacher_divergence,
      'alive': found.alive,
      'samples': subject.samples,
    }
  }


def _coverage(subject: Subject) -> dict[str, Any]:
  found = coverage.likelihood_and_coverage(
    subject.pair,
    subject.evaluator.vocabulary,
    subject.batches(),
    samples=subject.samples,
    seed=subject.seed,
  )
  return {'student': {**_flat(found), 'samples': subject.samples}}


def _temperatures(subject: Subject) -> dict[str, Any]:
  rows = []
  for temperature in subject.temperatures:
    results = sampled.draw(
      subject.evaluator,
      subject.params,
      subject.batches,
      samples=subject.samples,
      temperature=temperature,
    )
    found = _flat(sampled.quality(results, seed=subject.seed))
    rows.append({'temperature': temperature, **found})
  return {'student': rows}


def _length_buckets(subject: Subject) -> dict[str, Any]:
  return {
    system: _buckets(result, subject.length_edges, subject.seed)
    for system, result in subject.results.items()
  }


def _buckets(
  result: loop.Result, edges: Sequence[int], seed: int
) -> list[dict[str, Any]]:
  lengths = [len(texts[0].split()) for texts in result.references]
  rows: list[dict[str, Any]] = []
  for name in result.metrics:
    found = buckets.by_length(result.scores[name], lengths, edges, seed=seed)
    rows = rows or [
      {'low': each.low, 'high': each.high, 'examples': each.examples}
      for each in found
    ]
    for row, each in zip(rows, found):
      row |= _flat({name: each.score or bootstrap.Interval(*[math.nan] * 3)})
  return rows


def _answers(subject: Subject) -> dict[str, Any]:
  results = sampled.draw(
    subject.evaluator,
    subject.params,
    subject.batches,
    samples=subject.samples,
    temperature=subject.temperature,
    top_p=subject.top_p,
    metrics=(),
  )
  kind, own, gold = _answer_of(subject.evaluator.metrics)
  found = sampled.final_answers(results, own, gold, seed=subject.seed)
  return {
    'student': {
      **_flat(found),
      'samples': subject.samples,
      'temperature': subject.temperature,
      'top_p': subject.top_p,
      'answer': kind,
    }
  }


def _answer_of(metrics: Sequence[str]) -> tuple[str, Callable, Callable]:
  """What an answer is, by the metrics that a task is judged by."""
  flexible = functools.partial(answers.gsm8k_answer, last_number=True)
  if 'gsm8k_accuracy' in metrics:
    return 'the number after ####', answers.gsm8k_answer, flexible
  if 'gsm8k_accuracy_flexible' in metrics:
    return 'the last number', flexible, flexible
  whole = lambda text: ' '.join(text.split())
  return 'the whole text', whole, whole


_BOTH = frozenset({'student', 'teacher'})
_STUDENT = frozenset({'student'})

ANALYSES: dict[str, Analysis] = {
  'exposure_bias': Analysis(
    _exposure_bias,
    'excess forward KL on prefixes of the student over prefixes of the '
    'teacher, both sampled at temperature 1, summed up to a length in tokens',
    _BOTH,
  ),
  'coverage': Analysis(
    _coverage,
    'nats a token, each sequence divided by its own length, sampled at '
    'temperature 1; distinct bigrams among five samples of the teacher',
    _BOTH,
  ),
  'temperatures': Analysis(
    _temperatures,
    "metrics of all of the student's samples; self_bleu is within those of "
    'one prompt (100: all the same)',
    _STUDENT,
    groups=True,
  ),
  'length_buckets': Analysis(
    _length_buckets,
    'by words of the first reference',
  ),
  'answers': Analysis(
    _answers,
    'pass@1 is the mean over samples, cons@k a majority vote of k',
    _STUDENT,
  ),
}


def _flat(found: Mapping[str, bootstrap.Interval]) -> dict[str, float]:
  """Scores by name, name_low and name_high."""
  flat = {}
  for name, (value, low, high) in found.items():
    flat |= {name: value, f'{name}_low': low, f'{name}_high': high}
  return flat


def _plain(value: Any) -> Any:
  """Returns what JSON can say: None where there is no number."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if hasattr(value, 'tolist'):
    value = value.tolist()
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
