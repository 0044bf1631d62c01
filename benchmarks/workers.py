"""Processes that run one framework each, and are driven by turns.

torch and jax would fight over the cores in one process. So each has its own,
which sleeps on a pipe while another works. A worker's training loop is the
framework's real one: between two steps it stands in `Station.hold`, which
answers what the driver asks until it is asked for the next step.
"""

import contextlib
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import timing


class Stopped(Exception):
  """The driver needs no more steps."""


class Station:
  """Where a worker's training loop stands between two steps."""

  def __init__(self, connection: Any):
    self._connection = connection
    self._meter = timing.Meter()
    self._asked = self._left = 0

  def hold(
    self,
    phases: Mapping[str, Callable[[], Any]],
    wait: Callable[[], Any] = lambda: None,
  ) -> None:
    """Answers the driver until it asks for steps; called before each.

    Args:
      phases: functions that the driver may call by name, or time; these wait
        for their results.
      wait: waits for the last step's results.

    Raises:
      Stopped: the driver needs no more.
    """
    if self._left:
      self._left -= 1
      if self._left:
        return
      wait()
      self._connection.send(self._meter.stop(self._asked))
    while True:
      kind, name, calls = self._connection.recv()
      if kind == 'stop':
        raise Stopped
      if kind == 'step':
        self._asked = self._left = calls
        self._meter.start()
        return
      if kind == 'call':
        self._connection.send(phases[name]())
      else:
        self._connection.send(timing.measure(phases[name], calls))


class Failed(RuntimeError):
  """A worker failed; its traceback is the message."""


class Worker:
  """The driver's end of a worker."""

  def __init__(
    self, name: str, entry: str, options: Mapping[str, Any], log: str
  ):
    """Starts `entry` ('module:function') as `function(station, **options)`.

    What it prints goes to the file `log`.
    """
    context = multiprocessing.get_context('spawn')
    self._connection, theirs = context.Pipe()
    arguments = (theirs, entry, dict(options), log)
    self.name = name
    self._process = context.Process(target=_serve, args=arguments, daemon=True)
    self._process.start()
    theirs.close()

  def call(self, name: str) -> Any:
    """Returns what a phase returns."""
    return self._ask('call', name)

  def time(self, name: str, calls: int = 1) -> timing.Sample:
    """Times a phase; 'step' is the training loop's next steps."""
    return self._ask('step' if name == 'step' else 'time', name, calls)

  def stop(self) -> None:
    """Ends the process."""
    with contextlib.suppress(OSError):
      self._connection.send(('stop', '', 0))
      self._process.join(timeout=30)
    if self._process.is_alive():
      self._process.kill()

  def _ask(self, kind: str, name: str, calls: int = 1) -> Any:
    # A worker that failed has closed its end, and left its traceback there.
    with contextlib.suppress(BrokenPipeError):
      self._connection.send((kind, name, calls))
    try:
      answer = self._connection.recv()
    except (EOFError, ConnectionResetError):
      raise Failed(f'{self.name}: the process died') from None
    if isinstance(answer, Failed):
      raise Failed(f'{self.name}: {answer}')
    return answer


def _serve(
  connection: Any, entry: str, options: dict[str, Any], log: str
) -> None:
  """The worker's main function."""
  with open(log, 'w') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  try:
    module, _, function = entry.partition(':')
    run = getattr(importlib.import_module(module), function)
    run(Station(connection), **options)
  except (Stopped, EOFError):
    pass
  except BaseException:
    connection.send(Failed(traceback.format_exc()))


def memory() -> int:
  """Returns the most bytes that this process has held."""
  import resource

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
