"""The host loop: build, resume, step, log, evaluate, save. Nothing numeric."""

import concurrent.futures
import contextlib
import dataclasses
import logging
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from tqdm.contrib.logging import logging_redirect_tqdm

from kdjax import (
  build,
  checkpoints,
  checks,
  distributed,
  metrics,
  nonfinite,
  profiling,
  report,
  state,
  workdirs,
)
from kdjax.config import HARMLESS, Config, profiled
from kdjax.interruption import Interrupted, Interruption
from kdjax.run import Run

logger = logging.getLogger(__name__)

# A part of a step on the host's timeline, for profiles.
_annotate = jax.profiler.TraceAnnotation


def train(config: Config, workdir: str) -> None:
  """Distils the student, then prints and writes what came of it.

  The same call on the same workdir goes on where a killed process stopped, and
  ends in the same parameters.

  Raises:
    ValueError: the workdir belongs to another config, or to a run that is
      still going on, or parts don't fit.
    OSError: the disk is full, or can't be written.
    FloatingPointError: too many consecutive updates were not finite.
    SystemExit: a signal (SIGTERM, SIGINT) asked to stop; the state is saved.
  """
  checks.check_places(config)
  settings = dataclasses.asdict(config)
  workdirs.check(workdir, settings, HARMLESS)
  workdirs.check_free(workdir)
  run = build.build(config)
  with jax.set_mesh(run.mesh):
    trainer = Trainer(run, workdir)
    # Only now, so that a config that can't run leaves the workdir free.
    with workdirs.claimed(workdir, settings, HARMLESS):
      params = trainer.train()
      report.finish(run, workdir, params)


class Trainer:
  """One run's loop and everything that it writes to."""

  def __init__(self, run: Run, workdir: str):
    c = run.config
    self.run, self.config, self.workdir = run, c, pathlib.Path(workdir)
    self.program = run.program()
    # A batch to try things on: to read the data takes long.
    self.first = next(run.train_iterator())
    run.rehearse(self.program, self.first)
    self.data = run.train_pairs() if c.rollout_ahead else run.train_iterator()
    self.counts = run.counts()
    self.validation = report.Validation(run) if c.eval.every else None
    self.throughput = metrics.Throughput()
    self.profiler = profiling.Profiler(
      profiled(c.profile) if distributed.leads() else range(0),
      self.workdir / 'profile',
      self._drain,
    )
    self.watch = nonfinite.Watch(c.max_skipped)
    self.pending: Any = None
    self.totals, self.spent = metrics.Totals(), metrics.Spent()
    # `train` opens these: a config that can't run leaves the workdir alone.
    self.checkpoints: checkpoints.Checkpoints
    self.writer: metrics.Writer
    # What a checkpoint is read into; `_resume` says.
    self.template: state.State

  def train(self) -> Any:
    """Runs to the last step; returns the parameters to export, by name."""
    with contextlib.ExitStack() as stack:
      self.checkpoints = report.open_checkpoints(self.run, self.workdir)
      stack.enter_context(self.checkpoints)
      current, start = self._resume()
      workdirs.note_data(self.workdir, self.counts, resumed=start > 0)
      redone = 'eval/' if self._unscored(start) else ''
      self.writer = metrics.Writer(
        self.workdir, start + 1 if start else 0, redone
      )
      stack.enter_context(contextlib.closing(self.writer))
      with self._compiling(current, start):
        self._catch_up(start, current)
      current = self._loop(start, current)
      return self._chosen(current)

  @contextlib.contextmanager
  def _compiling(self, current: state.State, start: int) -> Iterator[None]:
    """Compiles the step while the first evaluation runs."""
    if self.config.time_phases:
      yield  # its phases are programs of their own
      return
    batch = following = self.run.place_batch(self.first)
    if not self.config.rollout_ahead:
      following = None

    def compile_step():
      with jax.set_mesh(self.run.mesh):
        self.program.compile(
          current, self.run.frozen, batch, self._rollouts(start), following
        )

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      ready = pool.submit(compile_step)
      yield
      ready.result()

  def _loop(self, start: int, current: state.State) -> state.State:
    steps = self.config.steps
    with (
      Interruption() as interruption,
      metrics.progress_bar(steps, start) as bar,
      logging_redirect_tqdm([logging.getLogger('kdjax')]),
      contextlib.closing(self.profiler),
    ):
      self.spent.restart()
      for done in range(start + 1, steps + 1):
        with self.profiler.step(done):
          current = self._step(done, current)
        bar.update()
        stop = interruption.reached()
        save = stop or done == steps or self.checkpoints.due(done)
        if save or self._evaluation_due(done):
          self._drain()
          found = None
          if not stop:
            try:
              found = self._evaluate(done, current, interruption.check)
            except Interrupted as interrupted:
              (stop,) = interrupted.args
          self.writer.sync()
          self.checkpoints.save(done, current, self, found)
          self.throughput.restart()
          self.spent.restart()
        if stop:
          self._stop(stop, done)
      self.checkpoints.wait()
    # What came since the last step was told; several processes tell each other
    # by the first call and read it by the second.
    if stop := interruption.reached() or interruption.reached():
      self._stop(stop, steps)
    return current

  def _stop(self, number: signal.Signals, done: int) -> NoReturn:
    """Ends the process by a signal, once what was saved is whole."""
    self.checkpoints.wait()
    logger.warning(
      'stopped by %s: step %d is saved, and the same command goes on',
      number.name,
      done,
    )
    raise SystemExit(128 + number)

  def _resume(self) -> tuple[state.State, int]:
    """Returns the latest checkpoint's state and step, or a fresh one and 0."""
    fresh = self.run.initial_state()
    if self.config.rollout_ahead:
      first = self.run.place_batch(self.first)
      fresh = self.program.ahead(
        fresh, self.run.frozen, first, self._rollouts(0)
      )
    self.template = checkpoints.abstract(fresh)
    if self.checkpoints.latest is None:
      return fresh, 0
    del fresh  # frees its arrays before the restored ones come
    step, restored = self.checkpoints.restore(self.template, self)
    logger.info('resumed at step %d from %s', step, self.workdir)
    return restored, step

  def _catch_up(self, start: int, current: state.State) -> None:
    """Scores the parameters that a run begins with, or was stopped before."""
    if not self._unscored(start):
      return
    found = self._evaluate(start, current)
    if start and found:
      self.checkpoints.add_metrics(start, found)

  def _unscored(self, start: int) -> bool:
    """Whether an evaluation is due before the first step that is to come.

    A kill may have left its line without sealing its numbers.
    """
    known = start and self.checkpoints.metrics(start)
    return self._evaluation_due(start) and not known

  def get_state(self) -> dict[str, Any]:
    """Returns what the host is at, which checkpoints keep with the state."""
    return {
      'data': self.data.get_state(),
      'totals': self.totals.get_state(),
      'spent': self.spent.report(),
    }

  def set_state(self, found: Mapping[str, Any]) -> None:
    """Goes on from what `get_state` returned."""
    self.data.set_state(found['data'])
    self.totals.set_state(found['totals'])
    self.spent.set_state(found['spent'])

  def _step(self, done: int, current: state.State) -> state.State:
    """Dispatches one update, and reads the metrics of the one before."""
    with _annotate('batch'):
      batch, options = next(self.data), {}
      if self.config.rollout_ahead:
        batch, following = batch
        options['following'] = self.run.place_batch(following)
      batch = self.run.place_batch(batch)
    if self.config.time_phases:
      self._drain()  # the phases of the step before end with it
      options['around'] = self._timed
    with _annotate('dispatch'):
      current, found = self.program.update(
        current, self.run.frozen, batch, self._rollouts(done - 1), **options
      )
    self._drain()
    self.pending = done, found
    return current

  def _rollouts(self, step: int) -> int:
    """Returns how many rows the student responds to."""
    c = self.config
    return self.run.objective.rollout_rows(step, c.batch_size, c.seed)

  def _timed(self, phase: str, run: Callable[[], Any]) -> Any:
    """Runs a phase of a step and waits for it, so that its time is its own."""
    with _annotate(phase), self.throughput.phase(phase):
      return jax.block_until_ready(run())

  def _tokens(self, found: Any) -> dict[str, float]:
    """Returns how many tokens each phase of a step was about."""
    learned = float(found['tokens'][0])
    sampled = sum(
      float(v[0]) for k, v in found.items() if k.endswith('/length')
    )
    # The teacher reads once what is learned from several times.
    read = learned / self.config.updates_per_rollout if self.run.frozen else 0
    return {
      'rollout': sampled,
      'teacher': read,
      'update': learned,
      'step': learned,
    }

  def _drain(self) -> None:
    """Takes in the metrics of the last dispatched step."""
    if self.pending is None:
      return
    (done, found), self.pending = self.pending, None
    with _annotate('metrics'):
      found = jax.device_get(found)
    tokens = self._tokens(found)
    self.throughput.lap(tokens)
    self.spent.step(tokens['rollout'], tokens['update'])
    latest = self.watch.take(done, found)
    self.totals.add(found)
    if self._log_due(done):
      means = {**self.totals.take(), **metrics.summarize(latest)}
      clocks = {**self.throughput.report(), **self.spent.report()}
      self.writer.write(done, {**means, **clocks})
      logger.info('step %d: loss %.4f', done, means['loss'])
      self.watch.tell(done, latest, last=done == self.config.steps)

  def _log_due(self, done: int) -> bool:
    return done % self.config.log_every == 0 or done == self.config.steps

  def _evaluation_due(self, done: int) -> bool:
    every = self.config.eval.every
    return bool(every) and (done % every == 0 or done == self.config.steps)

  def _evaluate(
    self,
    done: int,
    current: state.State,
    check: Callable[[], None] = lambda: None,
  ) -> dict[str, float] | None:
    """Scores the student where that is due; returns and writes the numbers.

    Args:
      done: steps.
      current: whose student.
      check: called before every batch; what it raises ends the evaluation.
    """
    if not self._evaluation_due(done):
      return None
    scalars, samples = self.validation(done, current.params['student'], check)
    self.writer.write(done, {**scalars, **self.spent.report()})
    self.writer.write_text(done, 'samples', samples)
    return scalars

  def _chosen(self, current: state.State) -> dict[str, Any]:
    """The parameters that `checkpoint.export` names: the last or the best."""
    if self.config.checkpoint.export == 'best' and self.checkpoints.best:
      best, current = self.checkpoints.restore(self.template, best=True)
      logger.info('exporting step %d, the best', best)
    return current.params
