"""Several samples of each prompt: quality and diversity, and final answers."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from kdjax import types
from kdjax.evaluation import answers, bootstrap, diversity, loop
from kdjax.evaluation.scores import Scores

Batches = Callable[[], Iterable[tuple[types.Batch, int]]]


def draw(
  evaluator: loop.Evaluator,
  params: Any,
  batches: Batches,
  *,
  samples: int,
  temperature: float,
  top_p: float = 1.0,
  metrics: tuple[str, ...] | None = None,
) -> list[loop.Result]:
  """Samples every prompt several times; returns a result a sample.

  Args:
    evaluator: of the model; its own temperature, beams and teacher don't count.
    params: of the model.
    batches: returns the batches of the set, anew at each call.
    samples: how many. More of them change none of the earlier ones.
    temperature: what they are drawn at.
    top_p: cuts off the unlikely tokens.
    metrics: what each is scored by; by default the evaluator's.
  """
  return [
    dataclasses.replace(
      evaluator,
      metrics=evaluator.metrics if metrics is None else metrics,
      temperature=temperature,
      beams=1,
      generation={'top_p': top_p},
      teacher=None,
      # Intervals are of all samples together, and cost more than the scores.
      resamples=1,
      # The runs of a sweep have seeds next to each other.
      seed=evaluator.seed + (i << 20),
    )(params, batches())
    for i in range(samples)
  ]


def groups(results: Sequence[loop.Result]) -> list[tuple[str, ...]]:
  """Returns the samples of each prompt: N tuples of texts."""
  return list(zip(*(result.predictions for result in results), strict=True))


def quality(
  results: Sequence[loop.Result], *, resamples: int = 1000, seed: int = 0
) -> dict[str, bootstrap.Interval]:
  """Metrics of all samples together, and self-BLEU within a prompt's.

  Prompts are resampled with all their samples.

  Args:
    results: one a sample, of at least two.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  References:
    Agarwal et al., "On-policy distillation of language models", 2024 (quality
    against self-BLEU, by temperature).
  """
  found = {
    name: Scores(sum(r.scores[name].statistics for r in results), one.aggregate)
    for name, one in results[0].scores.items()
  }
  found['self_bleu'] = diversity.self_bleu(groups(results))
  return {
    name: bootstrap.interval(one, resamples=resamples, seed=seed)
    for name, one in found.items()
  }


def final_answers(
  results: Sequence[loop.Result],
  answer: Callable[[str], Hashable | None],
  gold_answer: Callable[[str], Hashable | None],
  *,
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, bootstrap.Interval]:
  """'pass@1', the share of right samples, and 'cons@k', of majority votes.

  Args:
    results: one a sample, k of them.
    answer: the final answer of a sample, None where there is none.
    gold_answer: that of a reference.
    resamples: of the bootstrap, which draws prompts.
    seed: of the bootstrap.
  """
  said = [[answer(text) for text in texts] for texts in groups(results)]
  gold = [
    {gold_answer(text) for text in texts} - {None}
    for texts in results[0].references
  ]
  right = [[each in own for each in texts] for texts, own in zip(said, gold)]
  found = {
    'pass@1': answers.pass_at_1(right),
    'cons@k': answers.consensus(said, gold),
  }
  return {
    name: bootstrap.interval(one, resamples=resamples, seed=seed)
    for name, one in found.items()
  }
