"""Traces of chosen steps by jax.profiler, for TensorBoard and Perfetto."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

import jax

from kdjax import files

logger = logging.getLogger(__name__)


class Profiler:
  """Traces a range of steps; each is a 'step' on the timeline.

  The devices are waited for before the first step and after the last, so that
  the trace holds these steps and nothing else. No number changes.
  """

  def __init__(
    self,
    steps: range,
    directory: str | os.PathLike,
    wait: Callable[[], object],
  ):
    """Notes what to trace; writes nothing yet.

    Args:
      steps: consecutive ones; none for no trace.
      directory: where the trace goes: TensorBoard's log directory.
      wait: returns once the devices have done all that they were given.
    """
    self._steps, self._wait = steps, wait
    self._directory = pathlib.Path(directory)
    self._tracing = False

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Around a step: the trace begins and ends where it is due."""
    if number in self._steps and not self._tracing:
      self._start()
    with jax.profiler.StepTraceAnnotation('step', step_num=number):
      yield
    if self._tracing and number == self._steps[-1]:
      self._wait()
      self.close()

  def _start(self) -> None:
    self._wait()
    options = jax.profiler.ProfileOptions()
    # Else Python's calls crowd out what viewers show: a million events at most.
    options.python_tracer_level = 0
    with files.disk_errors(self._directory):
      jax.profiler.start_trace(self._directory, profiler_options=options)
    self._tracing = True

  def close(self) -> None:
    """Writes the trace, also where the run stops within these steps."""
    if self._tracing:
      self._tracing = False
      with files.disk_errors(self._directory):
        jax.profiler.stop_trace()
      logger.info('profile: %s', self._directory)
