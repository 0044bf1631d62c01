"""The jitted step: one program, or one a phase."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax import types
from kdjax.models import api
from kdjax.state import State
from kdjax.step import host_rewards, replay
from kdjax.step.learn import Scored, learn
from kdjax.step.rehearsal import rehearse
from kdjax.step.rollout import rollout
from kdjax.step.score import Judged, score
from kdjax.step.settings import Metrics, Settings
from kdjax.step.whole import policy, total, whole

# Runs a phase of a step; a trainer may time it.
Around = Callable[[str, Callable[[], Any]], Any]


class Program:
  """The jitted step, which one dispatch runs.

  It is a program a phase where the host computes rewards or times the phases,
  and where the number of rollouts changes: the rollout alone is then compiled
  for each.
  """

  def __init__(self, settings: Settings):
    """Raises ValueError where a loss reads a model that there isn't."""
    _check(settings)
    self.settings = settings
    self.fused = not settings.host_rewards and settings.objective.steady
    self._numbers: Any = None
    self._rollout = self._jit(rollout, static_argnames='rows')
    self._score = self._jit(score)
    self._recall = None
    self._learn = None
    self._whole = None

  def _jit(self, part: Callable[..., Any], **options: Any) -> Any:
    """Compiles a part of the step, a function of (numbers, ...).

    The numbers of its settings are arguments, so that runs which differ in them
    alone find it compiled already.
    """

    @functools.wraps(part)
    def run(numbers, *args, **kwargs):
      return part(self.settings.bind(numbers), *args, **kwargs)

    return jax.jit(run, **options)

  def _given(self, state: State) -> Any:
    """Returns the settings' numbers, on the devices that the state is on."""
    if self._numbers is None:
      numbers = self.settings.numbers()
      self._numbers = jax.device_put(numbers, state.step.sharding)
    return self._numbers

  def update(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int | None = None,
    following: types.Batch | None = None,
    around: Around | None = None,
  ) -> tuple[State, Metrics]:
    """One step: `(state, frozen, batch) -> (state, metrics)`.

    Args:
      state: taken over (donated).
      frozen: parameters by name: 'teacher', 'reference' and 'reward', where a
        loss reads them.
      batch: on the devices; references, where a reward reads them, on the host.
      rows: rollouts to sample, from `Objective.rollout_rows`; may be left out
        where that is the same at every step.
      following: the next step's batch, where the state holds this one's
        rollouts (see `ahead`): it is the next one's that are sampled.
      around: called with the name of each phase and a function that runs it.

    Raises:
      ValueError: there are no rows, and the objective's number of them changes.
    """
    rows = self._steady_rows(batch) if rows is None else rows
    if self.fused and around is None:
      run, args = self._whole_step(state, frozen, batch, rows, following)
      return run(*args)
    around = around or (lambda phase, run: run())
    return self._phases(state, frozen, batch, rows, following, around)

  def _steady_rows(self, batch: types.Batch) -> int:
    goal = self.settings.objective
    if not goal.steady:
      raise ValueError(
        'the student responds to another number of rows at every step: give '
        'rows=objective.rollout_rows(step, batch_size, seed)'
      )
    return goal.rollout_rows(0, batch.prompt.tokens.shape[0], seed=0)

  def compile(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
    following: types.Batch | None = None,
  ) -> Any:
    """Compiles and returns what `update` will run, if it is one program."""
    if not self.fused:
      return None
    run, args = self._whole_step(state, frozen, batch, rows, following)
    return run.lower(*args).compile()

  def ahead(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
  ) -> State:
    """Samples the rollouts of the first batch, for the state to hold.

    From then on each step samples for the next while it learns: by parameters
    that are one step old when they are learned from.
    """
    sampled = self.rollout(state, frozen, batch, rows)
    return dataclasses.replace(state, pending_rollout=sampled)

  def rollout(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
    steps_ahead: int = 0,
  ) -> tuple[tuple[types.Response, ...], Metrics]:
    """Jitted `rollout`, by the behaviour policy where there is one."""
    teacher = frozen.get('teacher') if self.settings.samples_teacher else None
    step = state.step + steps_ahead
    return self._rollout(
      self._given(state),
      policy(state),
      teacher,
      bare(batch),
      step,
      state.key,
      rows=rows,
    )

  def recall(
    self,
    state: State,
    batch: types.Batch,
    responses: tuple[types.Response, ...],
    rows: int,
  ) -> tuple[State, tuple[types.Response, ...], Metrics]:
    """Jitted `replay.recall`, where terms replay earlier responses."""
    if not self.settings.objective.replayed():
      return state, responses, {}
    if self._recall is None:
      self._recall = self._jit(
        replay.recall,
        static_argnames='rows',
        out_shardings=(_shardings(state.replay), None, None),
      )
    given = state.replay, bare(batch), responses, state.step, state.key
    found, *rest = self._recall(self._given(state), *given, rows=rows)
    return dataclasses.replace(state, replay=found), *rest

  def judge(
    self, batch: types.Batch, responses: tuple[types.Response, ...]
  ) -> tuple[Judged, ...]:
    """Returns the rewards over texts, which the host computes.

    Raises:
      ValueError: a reward isn't one finite number a response.
    """
    return host_rewards.judge(self.settings, batch, responses)

  def score(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    responses: tuple[types.Response, ...],
    judged: tuple[Judged, ...] | None = None,
  ) -> tuple[Scored, Metrics]:
    """Jitted `score`."""
    judged = judged or ({},) * len(responses)
    return self._score(
      self._given(state),
      state.params['student'],
      self._models(frozen),
      bare(batch),
      responses,
      judged,
      state.step,
    )

  def learn(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    scored: Scored,
    parts: int = 1,
    update: int = 0,
  ) -> tuple[State, Metrics]:
    """Jitted `learn`; takes the state over, returns the next sharded alike."""
    if self._learn is None:
      self._learn = self._jit(
        learn,
        static_argnames='parts',
        donate_argnames='state',
        out_shardings=(_shardings(state), None),
      )
    teacher = frozen.get('teacher')
    return self._learn(
      self._given(state), state, teacher, scored, parts=parts, update=update
    )

  def rehearse(
    self,
    params: Mapping[str, Any],
    frozen: Mapping[str, Any],
    batch: types.Batch,
    rows: int,
  ) -> None:
    """Traces a step without running it, so that what cannot be is said early.

    Args:
      params: 'student', and the auxiliary parameters of terms; shapes are read.
      frozen: as for `update`.
      batch: as for `update`.
      rows: as for `update`.

    Raises:
      ValueError: the models, responses and rewards don't fit the terms.
    """
    rehearse(self.settings, params, frozen, bare(batch), rows)

  def try_rewards(
    self,
    prompt: types.Prompt,
    response: types.Response,
    references: Sequence[Sequence[str]],
    example_id: jax.Array | None = None,
  ) -> None:
    """Calls the rewards of the caller's on a few responses.

    Args:
      prompt: [R, S].
      response: [R, T].
      references: of the R rows, or empty.
      example_id: [R], by which an error names a row; None numbers them.

    Raises:
      ValueError: one of them isn't one finite number a response.
    """
    host_rewards.rehearse(
      self.settings, prompt, response, references, example_id
    )

  def _models(self, frozen: Mapping[str, Any]) -> dict[str, Any]:
    names = self.settings.objective.models()
    return {k: v for k, v in frozen.items() if k in names}

  def _whole_step(
    self,
    state: State,
    frozen: Mapping[str, Any],
    batch: types.Batch,
    rows: int,
    following: types.Batch | None,
  ) -> tuple[Any, tuple[Any, ...]]:
    """Returns the jitted function of a whole step, and its arguments."""
    if self._whole is None:
      self._whole = self._jit(
        whole,
        static_argnames=('parts', 'rows'),
        donate_argnames='state',
        out_shardings=(_shardings(state), None),
      )
    models = self._models(frozen)
    if self.settings.samples_teacher:
      models['teacher'] = frozen['teacher']
    parts = self.settings.micro_batches(batch)
    following = None if following is None else bare(following)
    given = parts, state, models, bare(batch), following, rows
    return self._whole, (self._given(state), *given)

  def _phases(
    self,
    state: State,
    frozen: Mapping[str, api.Params],
    batch: types.Batch,
    rows: int,
    following: types.Batch | None,
    around: Around,
  ) -> tuple[State, Metrics]:
    """A step phase by phase."""
    parts, pending = self.settings.micro_batches(batch), state.pending_rollout
    asked, ahead = (batch, 0) if pending is None else (following, 1)
    current = dataclasses.replace(state, pending_rollout=None)

    def draw():
      sampled = self.rollout(state, frozen, asked, rows, ahead)
      responses, metrics = sampled if pending is None else pending
      return sampled, metrics, self.recall(current, batch, responses, rows)

    sampled, metrics, drawn = around('rollout', draw)
    current, responses, recalled = drawn
    judged = around('reward', lambda: self.judge(batch, responses))
    scored, more = around(
      'teacher', lambda: self.score(current, frozen, batch, responses, judged)
    )

    def updates(state, found):
      for update in range(self.settings.updates_per_rollout):
        state, latest = self.learn(state, frozen, scored, parts, update)
        found.append(latest)
      return state, total(found)

    current, found = around('update', lambda: updates(current, []))
    waits = None if pending is None else sampled
    current = dataclasses.replace(current, pending_rollout=waits)
    return current, {**metrics, **recalled, **more, **found}


def bare(batch: types.Batch) -> types.Batch:
  """Returns the batch without what stays on the host."""
  tasks = {name: bare(part) for name, part in batch.tasks.items()}
  return dataclasses.replace(batch, references=None, tasks=tasks)


def _shardings(state: Any) -> Any:
  """Returns how the next state is to be sharded: like this one.

  Left to XLA, some arrays come back otherwise, and the next step is compiled
  anew.
  """
  return jax.tree.map(
    lambda x: x.sharding if getattr(x, 'committed', False) else None, state
  )


def _check(settings: Settings) -> None:
  goal = settings.objective
  names = [term.name for term in goal.terms]
  if problems := goal.cache_problems():
    raise ValueError('\n'.join(problems))
  reads = goal.models()
  if settings.samples_teacher:
    reads = reads | {'teacher'}
  if 'teacher' in reads and settings.teacher is None:
    raise ValueError(f'terms {names} need a teacher; settings.teacher is None')
  if 'reward' in reads and settings.reward_model is None:
    raise ValueError(
      f'terms {names} need a reward model; settings.reward_model is None'
    )
  unknown = sorted(goal.foreign_rewards() - set(settings.rewards))
  if unknown:
    raise ValueError(
      f'terms {names} maximise {unknown}, which settings.rewards does not '
      f'define (it has {sorted(settings.rewards)})'
    )
  if settings.host_rewards and settings.decode is None:
    raise ValueError(
      f'rewards {sorted(settings.host_rewards)} read texts: give '
      'settings.decode, which turns tokens into text'
    )
