"""An objective: the sum of terms, and what a step must provide for it."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from kdjax.objective.draws import Draw
from kdjax.objective.registry import LOSSES
from kdjax.objective.rewards import REWARDS
from kdjax.objective.terms import Term

# Names of other groups of parameters, or of optimizers.
RESERVED = {'student', 'main', 'frozen'}


@dataclasses.dataclass(frozen=True)
class Objective:
  """A weighted sum of terms.

  Attributes:
    terms: the summands.
    cached: the tasks whose terms read what a cache holds of the teacher
      (`types.TopK`), in place of a live one; '' is the main one.
  """

  terms: tuple[Term, ...]
  cached: frozenset[str] = frozenset()

  def numbers(self) -> dict[str, dict[str, float]]:
    """Returns `Term.numbers` of each term, by its name."""
    found = {term.name: term.numbers() for term in self.terms}
    for term in filter(self.reads_cache, self.terms):
      # Known to be 1, as nothing is known of another one.
      found[term.name].pop('temperature', None)
    return found

  def caching(self, tasks: Collection[str]) -> 'Objective':
    """Returns the objective with other `cached` tasks."""
    return dataclasses.replace(self, cached=frozenset(tasks))

  def reads_cache(self, term: Term) -> bool:
    """Whether a term's teacher is what a cache holds of it."""
    return term.task in self.cached and 'teacher' in term.needs()

  def bind(self, numbers: Mapping[str, Mapping[str, Any]]) -> 'Objective':
    """Returns the objective with other, possibly traced, `numbers`."""
    terms = (
      dataclasses.replace(term, bound=numbers.get(term.name, {}))
      for term in self.terms
    )
    return dataclasses.replace(self, terms=tuple(terms))

  def problems(self) -> list[str]:
    """Returns what is wrong with the terms, each as a sentence."""
    found = [problem for term in self.terms for problem in term.problems()]
    names = [term.name for term in self.terms]
    if not names:
      found.append('an objective needs at least one term')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
      found.append(f'terms share the names {twice}; names must differ')
    taken = [
      term.name
      for term in self.terms
      if term.name in RESERVED
      and getattr(LOSSES.get(term.loss), 'auxiliary', 0)
    ]
    if taken:
      found.append(
        f'terms {taken} have parameters of their own, under names that are '
        'taken: rename them'
      )
    return found or self._coin_problems() + self._replay_problems()

  def _replay_problems(self) -> list[str]:
    """What is replayed must have been sampled."""
    return [
      f'terms replay what the student said to '
      f'{f"the task {task!r}" if task else "the main task"}, but none '
      "samples it there: name the source 'student' as well, such as "
      "{'student': 0.1, 'replay': 0.9}"
      for task in self.replayed()
      if 'student' not in self.sources(task)
    ]

  def _coin_problems(self) -> list[str]:
    """One toss decides for the batch, so it must be the same for all terms."""
    terms = [
      term for term in self.terms if any(d.sampled for d in term.draws())
    ]
    draws = [d for term in terms for d in term.draws() + term.baselines()]
    keys = {draw.key for draw in draws}
    tossed = any(term.coin == 'batch' for term in terms)
    if not tossed or len(keys) == 1:
      return []
    return [
      f'terms {[term.name for term in terms]} draw from the student: for '
      "coin='batch' all of them need it, and the same source; or give all "
      "coin='example'"
    ]

  def cache_problems(self) -> list[str]:
    """Returns what caches lack that terms read, each as a sentence."""
    found = []
    for term in filter(self.reads_cache, self.terms):
      sources = sorted({k for draw in term.draws() for k in draw.mixture()})
      if sources != ['teacher']:
        found.append(
          f'term {term.name!r} compares with the teacher on {sources}, but '
          'only the cached responses of the teacher have its '
          "log-probabilities: set its source to 'teacher'"
        )
      if not LOSSES[term.loss].top_k:
        known = [name for name, loss in LOSSES.items() if loss.top_k]
        found.append(
          f'term {term.name!r}: {term.loss} reads more of the teacher than its '
          f'likeliest tokens, which suffice for {known}'
        )
      temperature = term.loss_args.get('temperature', 1.0)
      if temperature != 1:
        found.append(
          f'term {term.name!r}: loss_args.temperature={temperature}, but the '
          'cached log-probabilities are at 1, which says nothing of the mass '
          'of other tokens elsewhere: leave it out'
        )
    return found

  def views(self) -> tuple[Draw, ...]:
    """Returns the draws that losses read: one forward pass of the student each.

    Terms that see the same responses share one.
    """
    draws = [draw for term in self.terms for draw in term.draws()]
    return tuple({draw.key: draw for draw in draws}.values())

  def draws(self) -> tuple[Draw, ...]:
    """Returns all draws that models judge, before samples are ranked."""
    draws = [
      draw.unranked
      for term in self.terms
      for draw in term.draws() + term.baselines()
    ]
    return tuple({draw.key: draw for draw in draws}.values())

  def readers(self, draw: Draw) -> tuple[Term, ...]:
    """Returns the terms that read a draw, or the samples it is chosen from."""
    keys = {draw.key, draw.unranked.key}
    return tuple(
      term
      for term in self.terms
      if any(
        {each.key, each.unranked.key} & keys
        for each in term.draws() + term.baselines()
      )
    )

  def tokenwise(self, key: Any) -> tuple[Term, ...]:
    """Returns the terms whose losses read single tokens of the draw `key`."""
    return tuple(
      term
      for term in self.terms
      if LOSSES[term.loss].tokenwise and term.draws()[0].key == key
    )

  def needs(self, draw: Draw | None = None) -> set[str]:
    """Returns what the losses of a draw (or all losses) read.

    See `Loss.needs`; a teacher that is cached is 'top_k' in place of 'teacher'.
    """
    terms = self.terms if draw is None else self.readers(draw)
    return set().union(*map(self._needs, terms))

  def _needs(self, term: Term) -> set[str]:
    if self.reads_cache(term):
      return term.needs() - {'teacher'} | {'top_k'}
    return term.needs()

  def rewards(self, draw: Draw | None = None) -> set[str]:
    """Returns the rewards that the responses of a draw (or all) get."""
    terms = self.terms if draw is None else self.readers(draw)
    names = set().union(*(term.rewards() for term in terms))
    ranks = (each.by for term in terms for each in term.draws())
    return names | {by for by in ranks if by}

  def models(self) -> set[str]:
    """Returns the frozen models it reads, of 'teacher', 'reference', 'reward'.

    Whoever samples from a teacher needs one beside that.
    """
    read: Collection[str] = self.needs() & {'teacher', 'reference'}
    named = self.rewards() & set(REWARDS)
    judges = set().union(*(REWARDS[name].needs for name in named))
    return set(read) | (judges - {'student'})

  def foreign_rewards(self) -> set[str]:
    """Returns the names of the rewards that are the caller's."""
    return self.rewards() - set(REWARDS)

  def tasks(self) -> set[str]:
    """Returns the names of the batches that terms read; '' is the main one."""
    return {term.task for term in self.terms}

  def sources(self, task: str | None = None) -> set[str]:
    """Returns the sources that terms (of one task) draw from, at some step."""
    terms = [term for term in self.terms if task in (None, term.task)]
    return set().union(*(term.sources() for term in terms))

  def replayed(self) -> tuple[str, ...]:
    """Returns the tasks of which terms replay what the student said."""
    return tuple(
      task for task in sorted(self.tasks()) if 'replay' in self.sources(task)
    )

  @property
  def steady(self) -> bool:
    """Whether the student responds to equally many rows at every step."""
    draws = [draw for draw in self.draws() if len(draw.mixture()) > 1]
    return not any(draw.scheduled or draw.coin == 'batch' for draw in draws)

  def sampled(self, task: str) -> tuple[str, ...]:
    """Returns the sources that the student must sample to a task's prompts."""
    draws = [draw for draw in self.draws() if draw.task == task]
    return tuple(
      sorted({d.sampled for d in draws if d.sampled} & _drawn(draws))
    )

  def rollout_rows(self, step: int, batch_size: int, seed: int) -> int:
    """Returns how many rows of the batch the student must respond to at a step.

    The most that any draw asks for, see `Draw.rollout_rows`.
    """
    needed = [d.rollout_rows(step, batch_size, seed) for d in self.draws()]
    return max(needed, default=0)


def _drawn(draws: Collection[Draw]) -> set[str]:
  return set().union(*(draw.sources() for draw in draws))
