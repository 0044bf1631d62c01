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
    ended: [N], whether a prediction ended by itself; None for texts that no
      model decoded.
    tokens: the ids of each prediction, and of each gold response where the set
      has them, by 'student' and 'gold'; empty likewise.
    divergences: values a token by names such as 'forward_kl_gold'.
  """

  metrics: dict[str, bootstrap.Interval]
  scores: dict[str, text.Scores]
  example_id: np.ndarray
  inputs: tuple[str, ...]
  predictions: tuple[str, ...]
  references: tuple[tuple[str, ...], ...]
  ended: np.ndarray | None = None
  tokens: Mapping[str, Sequence[np.ndarray]] = dataclasses.field(
    default_factory=dict
  )
  divergences: Mapping[str, Sequence[np.ndarray]] = dataclasses.field(
    default_factory=dict
  )

  @property
  def count(self) -> int:
    """N, the number of examples."""
    return len(self.predictions)

  @property
  def mean_length(self) -> float:
    """Tokens a prediction, the end-of-sequence token included."""
    lengths = [len(each) for each in self.tokens.get('student', ())]
    return float(np.mean(lengths)) if lengths else float('nan')

  @property
  def eos_fraction(self) -> float:
    """Share of predictions that ended by themselves."""
    return float('nan') if self.ended is None else float(np.mean(self.ended))

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
  **described: Any,
) -> Result:
  """Scores texts from anywhere, such as a baseline that isn't a model."""
  scores = {
    name: text.score(name, predictions, references, inputs=inputs)
    for name in metrics
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
  """One example after decoding; `divergences` are values a token."""

  example_id: int
  input: str
  prediction: str
  references: tuple[str, ...]
  ended: bool
  tokens: dict[str, np.ndarray]
  divergences: dict[str, np.ndarray]


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
    along = _columns([row.divergences for row in rows])
    return score_texts(
      [row.prediction for row in rows],
      [row.references for row in rows],
      self.metrics,
      inputs=[row.input for row in rows],
      example_id=[row.example_id for row in rows],
      extra={name: _mean_over_tokens(each) for name, each in along.items()},
      resamples=self.resamples,
      seed=self.seed,
      ended=np.array([row.ended for row in rows]),
      tokens=_columns([row.tokens for row in rows]),
      divergences=along,
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
    said = {'gold': gold, 'student': response}
    said = {
      # Gold has no log-probabilities: one program serves both.
      source: types.Response(each.tokens, each.mask)
      for source, each in said.items()
      if each is not None
    }
    along = {}
    if self.teacher is not None:
      for source, prefix in said.items():
        found = distribution.token_divergences(
          self.model,
          params,
          self.teacher,
          teacher_params,
          prompt,
          prefix,
          teacher_prompt=theirs,
          names=tuple(self.divergences),
        )
        along |= {f'{name}_{source}': x for name, x in found.items()}
    said, along = distributed.fetch((said, along))
    return [self._row(batch, i, said, along) for i in range(valid)]

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

  def _row(self, batch, i, said, along) -> _Row:
    eos_id = self.generation.get('eos_id')
    ends = self.model.eos_ids if eos_id is None else eos_id
    asked = batch.prompt.tokens[i][batch.prompt.mask[i]]
    tokens = {k: each.tokens[i][each.mask[i]] for k, each in said.items()}
    response = tokens['student']
    return _Row(
      example_id=int(batch.example_id[i]),
      input=self.vocabulary.decode(asked.tolist()),
      prediction=self.vocabulary.decode(response.tolist()),
      references=tuple(batch.references[i]),
      ended=bool(np.isin(response[-1:], ends).any()),
      tokens=tokens,
      divergences={
        name: values[i][said[name.rpartition('_')[2]].mask[i]]
        for name, values in along.items()
      },
    )


def _columns(
  rows: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, tuple[np.ndarray, ...]]:
  return {name: tuple(row[name] for row in rows) for name in rows[0]}


def _mean_over_tokens(values: Sequence[np.ndarray]) -> text.Scores:
  pairs = [(each.sum(dtype=np.float64), len(each)) for each in values]
  return text.Scores(np.array(pairs, np.float64), text.ratio)
