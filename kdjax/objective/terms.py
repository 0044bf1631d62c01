"""A term: one summand of an objective."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from kdjax.objective.draws import COINS, Draw
from kdjax.objective.loss import with_metrics
from kdjax.objective.policy import GROUPED
from kdjax.objective.readings import Reading, Target
from kdjax.objective.reductions import NORMALIZERS
from kdjax.objective.registry import LOSSES
from kdjax.objective.rewards import REWARDS
from kdjax.objective.specs import Spec, at_step, spec_problems

Source = str | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand `w · E_{y ~ source}[loss]`.

  Attributes:
    name: of its metrics.
    loss: a name in `LOSSES`.
    source: whose responses: a name in `SOURCES`, or a mixture of them such as
      `{'data': 0.5, 'student': 0.5}` (see `Draw`). A preference names two,
      `{'chosen': 'teacher', 'rejected': 'student'}`, or ranks the samples of
      each prompt, `{'ranked': 'student', 'by': 'teacher_logprob'}`: the best
      and the worst by a reward.
    task: a name in the config's `tasks`, whose prompts it reads; '' is the main
      one.
    weight: w, a number or a schedule.
    normalize: 'token' (mean over the batch's tokens), 'sequence' (mean over
      each sequence, then over sequences; GKD eq. 2) or 'sum' (per-sequence sum,
      mean over sequences).
    coin: 'example' or 'batch', see `Draw`.
    reward: what a policy gradient maximises, or a reward model is to predict: a
      name in `REWARDS`, or one of the caller's.
    finished_only: leaves out responses without an end-of-sequence token, and
      multiplies the term by the fraction of rows that stay (LLMR).
    loss_args: keyword arguments of the loss; numbers or schedules.
    bound: what stands for some `numbers` of the term, by name; possibly traced.
  """

  name: str
  loss: str
  source: Source = 'data'
  weight: Spec = 1.0
  normalize: str = 'token'
  coin: str = 'example'
  task: str = ''
  reward: str = ''
  finished_only: bool = False
  loss_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  bound: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def draws(self) -> tuple[Draw, ...]:
    """Returns what the loss reads: one draw, or the chosen and the rejected."""
    source = self.source
    if isinstance(source, Mapping) and 'ranked' in source:
      ranked, by = source['ranked'], source.get('by', '')
      return tuple(
        self._draw(ranked, rank=rank, by=by) for rank in ('best', 'worst')
      )
    if isinstance(source, Mapping) and 'chosen' in source:
      return tuple(self._draw(source.get(k)) for k in ('chosen', 'rejected'))
    return (self._draw(source),)

  def baselines(self) -> tuple[Draw, ...]:
    """Returns the draws whose rewards are compared, and no more is asked of."""
    greedy = self.loss_args.get('baseline') == 'greedy'
    return (self._draw('greedy'),) if greedy else ()

  def _draw(self, source: Any, **options: str) -> Draw:
    return Draw(source, task=self.task, coin=self.coin, **options)

  def sources(self) -> set[str]:
    """Returns the sources that the term draws from, at whatever step."""
    draws = self.draws() + self.baselines()
    return set().union(*(draw.sources() for draw in draws))

  @property
  def compares_samples(self) -> bool:
    """Whether it sets the samples of a prompt against each other."""
    grouped = self.loss_args.get('baseline') in GROUPED
    return grouped or any(draw.rank for draw in self.draws())

  @property
  def trusts_samples(self) -> bool:
    """Whether it could weigh samples by who drew them, and doesn't."""
    weighs = 'importance' in LOSSES[self.loss].args
    return weighs and 'samples' not in self.needs()

  def needs(self) -> set[str]:
    """Returns what must be at hand for the loss, see `Loss.needs`."""
    return LOSSES[self.loss].wants(self.loss_args)

  def rewards(self) -> set[str]:
    """Returns the names of the rewards that its responses get."""
    names = {self.reward} if 'reward' in self.needs() else set()
    if self.loss_args.get('baseline') == 'teacher':
      names.add('teacher_baseline')
    return names

  def args(self, step: Any) -> dict[str, Any]:
    """Returns the loss's arguments at a step, with the defaults."""
    filled = LOSSES[self.loss].filled(self.loss_args)
    found = {name: at_step(value, step) for name, value in filled.items()}
    return {name: self.bound.get(name, value) for name, value in found.items()}

  def weight_at(self, step: Any) -> Any:
    """Returns w at a step."""
    return self.bound.get('weight', at_step(self.weight, step))

  def numbers(self) -> dict[str, float]:
    """Returns the constants that a program may take as arguments, by name.

    Whole numbers that are part of it (`Option.fixed`) are not among them.
    """
    known = LOSSES[self.loss].args
    found = {'weight': self.weight} | {
      name: value
      for name, value in self.loss_args.items()
      if name in known and not known[name].fixed
    }
    return {k: float(v) for k, v in found.items() if type(v) in (int, float)}

  def values(
    self,
    step: Any,
    readings: tuple[Reading, ...],
    target: Target,
    params: Any = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the losses ([R, T] tokens or [R] pairs) and further metrics."""
    loss = LOSSES[self.loss]
    value = loss.values(readings, target, params, **self.args(step))
    return with_metrics(value)

  def problems(self) -> list[str]:
    """Returns what is wrong with the term, each as a sentence."""
    found = []
    for name, allowed in (('normalize', NORMALIZERS), ('coin', COINS)):
      if getattr(self, name) not in allowed:
        found.append(
          f'{name}={getattr(self, name)!r}; allowed are {list(allowed)}'
        )
    for name, kind in (('task', str), ('reward', str), ('finished_only', bool)):
      if not isinstance(getattr(self, name), kind):
        value = getattr(self, name)
        found.append(f'{name}={value!r}: expected {kind.__name__}')
    found += spec_problems('weight', self.weight)
    found += self._loss_problems() + self._source_problems()
    if not found:
      found = self._fit_problems()
    return [f'term {self.name!r}: {problem}' for problem in found]

  def _loss_problems(self) -> list[str]:
    if self.loss not in LOSSES:
      return [f'unknown loss {self.loss!r}; known are {sorted(LOSSES)}']
    known, found = LOSSES[self.loss].args, []
    unknown = sorted(set(self.loss_args) - set(known))
    if unknown:
      found.append(f'{self.loss} takes no {unknown}; it takes {list(known)}')
    for key in sorted(set(self.loss_args) & set(known)):
      value = self.loss_args[key]
      found += known[key].problems(f'loss_args.{key}', value)
    return found

  def _source_problems(self) -> list[str]:
    source = self.source
    if isinstance(source, Mapping):
      for keys in ({'chosen', 'rejected'}, {'ranked', 'by'}):
        if set(source) & keys and set(source) != keys:
          return [f'source={dict(source)}: expected the keys {sorted(keys)}']
    problems = [draw.problems() for draw in self.draws()]
    return list(dict.fromkeys(problem for each in problems for problem in each))

  def _fit_problems(self) -> list[str]:
    """What is wrong with a loss and a source that are right one by one."""
    loss, needs, found = LOSSES[self.loss], self.needs(), []
    if loss.pair != (len(self.draws()) == 2):
      expected = (
        "pairs: {'chosen': ..., 'rejected': ...} or {'ranked': ..., 'by': ...}"
        if loss.pair
        else "one response a prompt, such as 'data'"
      )
      found.append(f'source={self.source!r}: {self.loss} compares {expected}')
    if 'reward' in needs and not self.reward:
      found.append(f'{self.loss} needs a reward: name one in `reward`')
    if self.reward and 'reward' not in needs:
      found.append(f'reward={self.reward!r}: {self.loss} reads none')
    draws = self.draws()
    if len({draw.key for draw in draws}) < len(draws):
      found.append(
        f'source={self.source!r}: both sides are the same response, so that no '
        'pair counts: draw them from two sources, or rank samples'
      )
    only_student = {str(draw.source) for draw in draws} == {'student'}
    if self.compares_samples and not only_student:
      found.append(
        f'source={self.source!r}: only the student gives several samples of a '
        "prompt to compare: set the source to 'student'"
      )
    if draws[0].rank and not draws[0].by:
      found.append("source: 'by' must name the reward that ranks")
    if 'samples' in needs and not only_student:
      found.append(
        f'source={self.source!r}: {self.loss} weighs samples by the '
        "log-probabilities that they were drawn with, which only the student's "
        "have: set source='student', or loss_args.importance=False where the "
        'loss takes it'
      )
    if 'replay' in self.sources():
      found += self._replay_problems()
    return found + loss.problems(loss.filled(self.loss_args))

  def _replay_problems(self) -> list[str]:
    """What can't be made of rows that bring their own prompts."""
    start, found = f'source={self.source!r}: replayed responses', []
    if LOSSES[self.loss].pair:
      found.append(
        f'{start} answer prompts of their own, so that no pair is of one '
        'prompt: draw both sides from other sources'
      )
    if self.baselines():
      found.append(
        f"{start} answer prompts of their own: baseline='greedy' has none to "
        'compare them with; choose another'
      )
    if self.trusts_samples:
      found.append(
        f"{start} are an older policy's, and {self.loss} takes samples for the "
        "policy's own: set source='student'"
      )
    foreign = sorted(self.rewards() - {'teacher_baseline', *REWARDS})
    if foreign:
      found.append(
        f'{start} come without the texts and references that {foreign} '
        "reads: draw from 'student', or choose a reward that a model gives"
      )
    return found
