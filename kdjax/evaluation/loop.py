"""Evaluation of a language model on every example of a set, once."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdjax import distributed, sampling, types
from kdjax.evaluation import bootstrap, distribution, text
from kdjax.models import api


@dataclasses.dataclass(frozen=True)
class Result:
  """What an evaluation found. All of it on the host.

  Attributes:
    metrics: name to (value, low, high), the ends of a bootstrap 95% interval.
    scores: name to the statistics of each example, for paired comparisons.
    example_id: [N], the examples in the order of the statistics.
    inputs: the prompts' texts.
    predictions: the model's texts.
    references: the acceptable texts of each example.
    mean_length: tokens a prediction, the end-of-sequence token included.
    eos_fraction: share of predictions that ended by themselves.
  """

  metrics: dict[str, bootstrap.Interval]
  scores: dict[str, text.Scores]
  example_id: np.ndarray
  inputs: tuple[str, ...]
  predictions: tuple[str, ...]
  references: tuple[tuple[str, ...], ...]
  mean_length: float = float('nan')
  eos_fraction: float = float('nan')

  @property
  def count(self) -> int:
    """N, the number of examples."""
    return len(self.predictions)

  def scalars(self) -> dict[str, float]:
    """The numbers by flat names, for a metrics file."""
    found = {}
    # Texts that no model decoded have no lengths.
    if not np.isnan(self.mean_length):
      found = {'length': self.mean_length, 'eos_fraction': self.eos_fraction}
    for name, (value, low, high) in self.metrics.items():
      found |= {name: value, f'{name}_low': low, f'{name}_high': high}
    return found


def difference(
  before: Result, after: Result, *, resamples: int = 1000, seed: int = 0
) -> dict[str, bootstrap.Interval]:
  """The gain `after - before` of every common metric, by paired bootstrap.

  Raises:
    ValueError: where the two saw different examples.
  """
  if not np.array_equal(before.example_id, after.example_id):
    raise ValueError(
      f'The results cover different examples ({before.count} before, '
      f'{after.count} after). Evaluate both on the same set in one order.'
    )
  return {
    name: bootstrap.paired_difference(
      before.scores[name],
      after.scores[name],
      resamples=resamples,
      seed=seed,
    )
    for name in before.scores
    if name in after.scores
  }


def score_texts(
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
  metrics: Sequence[str],
  *,
  inputs: Sequence[str] | None = None,
  example_id: Sequence[int] | None = None,
  extra: dict[str, text.Scores] | None = None,
  resamples: int = 1000,
  seed: int = 0,
  **described: float,
) -> Result:
  """Scores texts from anywhere, such as a baseline that is no model."""
  scores = {
    name: text.score(name, predictions, references) for name in metrics
  } | (extra or {})
  n = len(predictions)
  return Result(
    metrics={
      name: bootstrap.interval(one, resamples=resamples, seed=seed)
      for name, one in scores.items()
    },
    scores=scores,
    example_id=np.arange(n) if example_id is None else np.asarray(example_id),
    inputs=tuple(inputs) if inputs is not None else ('',) * n,
    predictions=tuple(predictions),
    references=tuple(tuple(texts) for texts in references),
    **described,
  )


@dataclasses.dataclass(frozen=True)
class _Row:
  """One example after decoding; `pairs` are (sum, count) by divergence."""

  example_id: int
  input: str
  prediction: str
  references: tuple[str, ...]
  length: int
  ended: bool
  pairs: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """Decodes and scores every example of a set once.

  Whatever the parameters, batches of the same shapes run what the first one
  compiled: both generation and divergences are keyed on models and settings.

  Attributes:
    model: the model to evaluate.
    vocabulary: a `data.vocabularies.Vocabulary` (anything with `decode`).
    max_new_tokens: T of the decoded responses.
    metrics: names in `text.METRICS`.
    temperature: of evaluation; 0 is greedy.
    beams: above 1, beam search with this width instead.
    generation: further settings of `sampling.generate` or, with beams, of
      `sampling.beam_search`.
    teacher: with it, divergences from it on gold and on decoded prefixes, named
      such as 'forward_kl_gold' and 'reverse_kl_student'.
    divergences: names in `distribution.DIVERGENCES`.
    role: 'student' reads `batch.prompt`; 'teacher' reads the first of
      `batch.teacher_prompts` where there are any.
    resamples: of the bootstrap.
    seed: of the bootstrap and of sampling. Two systems with the same seed draw
      the same random numbers for the same example.
    place: puts a tree of numpy arrays on devices, for sharded evaluation. Of
      several processes each decodes its part of every batch, and all of them
      have the same result.

  Raises:
    ValueError: for an unknown name, or beams with a temperature.
  """

  model: api.LanguageModel
  vocabulary: Any
  max_new_tokens: int
  metrics: tuple[str, ...] = ('rouge1', 'rouge2', 'rougeL')
  temperature: float = 0.0
  beams: int = 1
  generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  teacher: api.LanguageModel | None = None
  divergences: tuple[str, ...] = ('forward_kl', 'reverse_kl')
  role: str = 'student'
  resamples: int = 1000
  seed: int = 0
  place: Callable[[Any], Any] = lambda tree: tree

  def __post_init__(self):
    text.check_names(self.metrics)
    distribution.check_names(self.divergences)
    if self.role not in ('student', 'teacher'):
      raise ValueError(
        f"role is {self.role!r}; expected 'student' or 'teacher'."
      )
    if self.beams < 1 or (self.beams > 1 and self.temperature):
      raise ValueError(
        f'beams={self.beams} with temperature={self.temperature}; expected '
        'one beam, or several with temperature 0: beam search samples nothing.'
      )

  def __call__(
    self,
    params: api.Params,
    batches: Iterable[tuple[types.Batch, int]],
    *,
    teacher_params: api.Params | None = None,
  ) -> Result:
    """Evaluates parameters on batches of numpy arrays.

    Args:
      params: of the model.
      batches: pairs of a batch and the number of its rows that count, the
        first ones; the others only fill the shape.
      teacher_params: of the teacher, where the evaluator has one.

    Raises:
      ValueError: for no examples, or a batch without references.
    """
    if (self.teacher is None) != (teacher_params is None):
      raise ValueError(
        'Divergences need a teacher twice: Evaluator(teacher=...) and '
        'teacher_params=... of the call. Only one of them was given.'
      )
    rows = [
      row
      for batch, valid in batches
      for row in self._rows(params, teacher_params, batch, valid)
    ]
    if not rows:
      raise ValueError('There are no examples to evaluate: the set is empty.')
    return score_texts(
      [row.prediction for row in rows],
      [row.references for row in rows],
      self.metrics,
      inputs=[row.input for row in rows],
      example_id=[row.example_id for row in rows],
      extra={
        name: text.Scores(
          np.array([row.pairs[name] for row in rows], np.float64), text.ratio
        )
        for name in rows[0].pairs
      },
      resamples=self.resamples,
      seed=self.seed,
      mean_length=float(np.mean([row.length for row in rows])),
      eos_fraction=float(np.mean([row.ended for row in rows])),
    )

  def _rows(self, params, teacher_params, batch, valid):
    """Decodes one batch; returns its valid rows."""
    if batch.references is None:
      raise ValueError(
        'The batch has no references to score against. Evaluate on a set '
        'with gold texts.'
      )
    theirs = batch.teacher_prompts[0] if batch.teacher_prompts else None
    prompt = theirs if self.role == 'teacher' and theirs else batch.prompt
    prompt, theirs, ids, gold = self.place(
      (prompt, theirs, batch.example_id, batch.responses.get('data'))
    )
    response = self._respond(params, prompt, ids)
    pairs = {}
    if self.teacher is not None:
      for source, prefix in (('gold', gold), ('student', response)):
        if prefix is None:
          continue
        # Gold has no log-probabilities: one program serves both.
        prefix = types.Response(prefix.tokens, prefix.mask)
        found = distribution.sequence_divergences(
          self.model,
          params,
          self.teacher,
          teacher_params,
          prompt,
          prefix,
          teacher_prompt=theirs,
          names=tuple(self.divergences),
        )
        pairs |= {f'{name}_{source}': pair for name, pair in found.items()}
    tokens, mask, pairs = distributed.fetch(
      (response.tokens, response.mask, pairs)
    )
    return [
      self._row(batch, i, tokens[i][mask[i]], pairs) for i in range(valid)
    ]

  def _respond(self, params, prompt, row_ids) -> types.Response:
    settings = {'max_new_tokens': self.max_new_tokens, **self.generation}
    if self.beams > 1:
      return sampling.beam_search(
        self.model, params, prompt, beams=self.beams, **settings
      )[0]
    return sampling.generate(
      self.model,
      params,
      prompt,
      jax.random.key(self.seed),
      temperature=self.temperature,
      row_ids=row_ids,
      **settings,
    )

  def _row(self, batch, i, said, pairs) -> _Row:
    eos_id = self.generation.get('eos_id')
    ends = self.model.eos_ids if eos_id is None else eos_id
    asked = batch.prompt.tokens[i][batch.prompt.mask[i]]
    return _Row(
      example_id=int(batch.example_id[i]),
      input=self.vocabulary.decode(asked.tolist()),
      prediction=self.vocabulary.decode(said.tolist()),
      references=tuple(batch.references[i]),
      length=len(said),
      ended=bool(np.isin(said[-1:], ends).any()),
      pairs={name: (sums[i], n[i]) for name, (sums, n) in pairs.items()},
    )
