"""The host loop: build, resume, step, log, evaluate, save. Nothing numeric."""

import concurrent.futures
import contextlib
import dataclasses
import logging
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from tqdm.contrib.logging import logging_redirect_tqdm

from kdjax import (
  build,
  checkpoints,
  distributed,
  metrics,
  profiling,
  report,
  state,
)
from kdjax.config import HARMLESS, Config, profiled
from kdjax.run import Run

logger = logging.getLogger(__name__)

# A part of a step on the host's timeline, for profiles.
_annotate = jax.profiler.TraceAnnotation


def train(config: Config, workdir: str) -> None:
  """Distils the student, then prints and writes what came of it.

  The same call on the same workdir goes on where a killed process stopped, and
  ends in the same parameters.

  Raises:
    ValueError: the workdir belongs to another config, or parts don't fit.
    FloatingPointError: too many consecutive updates were not finite.
    SystemExit: a signal (SIGTERM, SIGINT) asked to stop; the state is saved.
  """
  settings = dataclasses.asdict(config)
  checkpoints.check_claim(workdir, settings, HARMLESS)
  run = build.build(config)
  with jax.set_mesh(run.mesh):
    trainer = Trainer(run, workdir)
    # Only now, so that a config that can't run leaves the workdir free.
    checkpoints.claim(workdir, settings, HARMLESS)
    params = trainer.train()
    report.finish(run, workdir, params)


class Trainer:
  """One run's loop and everything that it writes to."""

  def __init__(self, run: Run, workdir: str):
    c = run.config
    self.run, self.config, self.workdir = run, c, pathlib.Path(workdir)
    self.program = run.program()
    run.rehearse(self.program, next(run.train_iterator()))
    self.data = run.train_pairs() if c.rollout_ahead else run.train_iterator()
    self.validation = report.Validation(run) if c.eval.every else None
    self.throughput = metrics.Throughput()
    self.profiler = profiling.Profiler(
      profiled(c.profile) if distributed.leads() else range(0),
      self.workdir / 'profile',
      self._drain,
    )
    self.pending: Any = None
    self.totals: Any = None

  def train(self) -> Any:
    """Runs to the last step; returns the parameters to export, by name."""
    with contextlib.ExitStack() as stack:
      self.checkpoints = report.open_checkpoints(self.run, self.workdir)
      stack.enter_context(self.checkpoints)
      current, start = self._resume()
      self.writer = metrics.Writer(self.workdir, start + 1 if start else 0)
      stack.enter_context(contextlib.closing(self.writer))
      self.spent = metrics.Spent(metrics.latest(self.workdir))
      with self._compiling(current, start):
        if not start:
          self._evaluate(0, current)
      current = self._loop(start, current)
      self.checkpoints.wait()
      return self._chosen(current)

  @contextlib.contextmanager
  def _compiling(self, current: state.State, start: int) -> Iterator[None]:
    """Compiles the step while the first evaluation runs."""
    if self.config.time_phases:
      yield  # its phases are programs of their own
      return
    batch = following = self.run.place_batch(next(self.run.train_iterator()))
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
        stop = interruption.reached() if done < steps else None
        save = stop or done == steps or self.checkpoints.due(done)
        if save or self._evaluation_due(done):
          self._drain()
          found = self._evaluate(done, current)
          if found is None and not self._logs(done):
            # Where a resumed run goes on from.
            self.writer.write(done, self.spent.report())
          self.checkpoints.save(done, current, self.data, found)
          self.throughput.restart()
          self.spent.restart()
        if stop:
          self.checkpoints.wait()
          logger.warning(
            'stopped by %s: step %d is saved, and the same command goes on',
            stop.name,
            done,
          )
          raise SystemExit(128 + stop)
    return current

  def _resume(self) -> tuple[state.State, int]:
    """Returns the latest checkpoint's state and step, or a fresh one and 0."""
    fresh = self.run.initial_state()
    if self.config.rollout_ahead:
      first = self.run.place_batch(next(self.run.train_iterator()))
      fresh = self.program.ahead(
        fresh, self.run.frozen, first, self._rollouts(0)
      )
    self.template = checkpoints.abstract(fresh)
    if self.checkpoints.latest is None:
      return fresh, 0
    del fresh  # frees its arrays before the restored ones come
    step, restored = self.checkpoints.restore(self.template, self.data)
    logger.info('resumed at step %d from %s', step, self.workdir)
    return restored, step

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
    latest = {k: found.pop(k) for k in ('skipped', 'consecutive_skipped')}
    in_a_row = int(latest['consecutive_skipped'][0])
    if in_a_row >= self.config.max_skipped:
      raise FloatingPointError(
        f'{in_a_row} consecutive updates up to step {done} were not finite '
        'and were skipped. Lower optimizer.learning_rate, or raise '
        f'max_skipped={self.config.max_skipped}. The checkpoints are intact.'
      )
    self.totals = metrics.accumulate(self.totals, found)
    if self._logs(done):
      means = metrics.summarize({**self.totals, **latest})
      clocks = {**self.throughput.report(), **self.spent.report()}
      self.writer.write(done, {**means, **clocks})
      logger.info('step %d: loss %.4f', done, means['loss'])
      self.totals = None

  def _logs(self, done: int) -> bool:
    return done % self.config.log_every == 0 or done == self.config.steps

  def _evaluation_due(self, done: int) -> bool:
    every = self.config.eval.every
    return bool(every) and (done % every == 0 or done == self.config.steps)

  def _evaluate(
    self, done: int, current: state.State
  ) -> dict[str, float] | None:
    """Scores the student where that is due; returns and writes the numbers."""
    if not self._evaluation_due(done):
      return None
    scalars, samples = self.validation(done, current.params['student'])
    self.writer.write(done, {**scalars, **self.spent.report()})
    self.writer.write_text(done, 'samples', samples)
    return scalars

  def _chosen(self, current: state.State) -> dict[str, Any]:
    """The parameters that `checkpoint.export` names: the last or the best."""
    best = self.checkpoints.best
    if self.config.checkpoint.export == 'best' and best is not None:
      logger.info('exporting step %d, the best', best)
      _, current = self.checkpoints.restore(self.template, step=best)
    return current.params


class Interruption:
  """Notes the first SIGTERM or SIGINT, so that the loop saves before it ends.

  A second Ctrl-C ends the process at once. Another SIGTERM changes nothing:
  clusters send it to a job's steps and then, by these, to its processes.

  Attributes:
    signal: what came to this process, or None.
  """

  def __init__(self):
    self.signal: signal.Signals | None = None
    self._before: dict[int, Any] = {}
    self._told: Any = 0

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def reached(self) -> signal.Signals | None:
    """Returns the signal that all processes stop by after this step, or None.

    Several ones tell each other after a step and stop after the next, when the
    answer is there without waiting for it.
    """
    if jax.process_count() == 1:
      return self.signal
    found, self._told = self._told, distributed.largest(self.signal or 0)
    return signal.Signals(int(found)) if int(found) else None

  def __exit__(self, *unused):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _note(self, number, unused_frame):
    self.signal = signal.Signals(number)
    before = self._before.pop(signal.SIGINT, None)
    if before is not None:
      signal.signal(signal.SIGINT, before)
