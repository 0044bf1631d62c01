"""Whether a student says what its teacher says, and all that it says."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from kdjax import distributed, losses, types
from kdjax.evaluation import bootstrap, rollouts, scores, text
from kdjax.models import api

# TeacherDist is over five samples; over more of them it is smaller.
_TEACHER_SAMPLES = 5


def likelihood_and_coverage(
  pair: rollouts.Pair,
  vocabulary: Any,
  batches: Iterable[tuple[types.Batch, int]],
  *,
  samples: int = 5,
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, bootstrap.Interval]:
  """Likelihood and coverage of a student, and its teacher's diversity.

  'likelihood' is R_llh, the mean of -log p(y') / |y'| over samples y' ~ q of
  the student: small where it says what the teacher might have. 'coverage' is
  R_cvg, the mean of -log q(y) / |y| over samples y ~ p of the teacher: small
  where it leaves out little of what the teacher says. Both in nats a token,
  each sequence divided by its own number of tokens, the end-of-sequence token
  included: what the released code computes, where the paper's formula doesn't
  divide. 'teacher_dist' is TeacherDist, the percentage of distinct bigrams
  among five samples of the teacher to one input, on average over inputs that
  have any.

  Args:
    pair: both models, sampled at temperature 1.
    vocabulary: anything with `decode`.
    batches: pairs of a batch of numpy arrays and the number of its rows that
      count, the first ones.
    samples: of the student, a prompt; the teacher's are five.
    resamples: of the bootstrap, which draws prompts.
    seed: of the bootstrap.

  Returns:
    Each with its bootstrap 95% interval.

  Raises:
    ValueError: for no examples.

  References:
    Wen et al., "f-Divergence minimization for sequence-level knowledge
    distillation", 2023.
  """
  rows: list[list[tuple[float, float]]] = []
  for batch, valid in batches:
    likelihood, _ = _surprisals(pair, 'student', batch, samples)
    covered, said = _surprisals(pair, 'teacher', batch, _TEACHER_SAMPLES)
    rows += [
      [
        (likelihood[i], samples),
        (covered[i], _TEACHER_SAMPLES),
        _distinct([vocabulary.decode(each[i].tolist()) for each in said]),
      ]
      for i in range(valid)
    ]
  if not rows:
    raise ValueError('There are no examples to sample from: the set is empty.')
  statistics = np.array(rows, np.float64)
  aggregates = {
    'likelihood': scores.ratio,
    'coverage': scores.ratio,
    'teacher_dist': scores.percentage,
  }
  return {
    name: bootstrap.interval(
      scores.Scores(statistics[:, i], aggregate), resamples=resamples, seed=seed
    )
    for i, (name, aggregate) in enumerate(aggregates.items())
  }


def _surprisals(
  pair: rollouts.Pair, role: str, batch: types.Batch, count: int
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
  """What a role says to the other one.

  Returns:
    The other one's -log-probability a token, [B], summed over samples; and the
    tokens, by sample and row.
  """
  total, said = 0.0, []
  for drawn in pair.draw(role, batch, count):
    judge = pair.teacher, pair.teacher_params
    read = drawn.teacher_prompt or drawn.prompt
    if role == 'teacher':
      judge, read = (pair.student, pair.student_params), drawn.prompt
    found = _surprisal(*judge, read, drawn.response, known=pair.known)
    values, response = distributed.fetch((found, drawn.response))
    total = total + values.astype(np.float64)
    rows = zip(response.tokens, response.mask, strict=True)
    said.append([tokens[mask] for tokens, mask in rows])
  return total, said


@functools.partial(jax.jit, static_argnames=('model', 'known'))
def _surprisal(
  model: api.LanguageModel,
  params: api.Params,
  prompt: types.Prompt,
  response: types.Response,
  *,
  known: int,
) -> jax.Array:
  """-log p(y | x) / |y| [B], normalised over the first `known` ids."""
  values = losses.chunked_values(
    losses.cross_entropy,
    model.hidden_states(params, prompt, response.tokens),
    model.output_head(params).first(known),
    labels=response.tokens,
    mask=response.mask,
  )
  return values.sum(-1) / response.mask.sum(-1)


def _distinct(texts: list[str]) -> tuple[float, float]:
  """Share of distinct bigrams, with weight 1; 0 if there are no bigrams."""
  found = text.score('distinct2', texts, [('',)] * len(texts))
  present = found.statistics[:, 1].sum() > 0
  return (found.value / 100.0, 1.0) if present else (0.0, 0.0)
