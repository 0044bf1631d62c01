"""Signals that ask a run to stop, so that it saves before it ends."""

import os
import signal
import sys
import threading
from typing import Any

import jax

from kdjax import distributed


class Interrupted(Exception):
  """What is under way is to be left: `args` holds the signal."""


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
    self._wakeup: tuple[int, int] | None = None

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
      if _handler_of_second(self._before[signal.SIGINT]) == signal.SIG_DFL:
        self._watch()
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

  def check(self) -> None:
    """Raises Interrupted once `reached` returns a signal."""
    if found := self.reached():
      raise Interrupted(found)

  def __exit__(self, *unused):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}
    if self._wakeup is not None:
      before, pipe = self._wakeup
      signal.set_wakeup_fd(before)
      os.close(pipe)  # which ends the thread
      self._wakeup = None

  def _note(self, number, unused_frame):
    self.signal = signal.Signals(number)
    before = self._before.pop(signal.SIGINT, None)
    if before is not None:
      signal.signal(signal.SIGINT, _handler_of_second(before))

  def _watch(self) -> None:
    """Has a second Ctrl-C end the process also while it waits for a device.

    Python runs handlers between its own instructions alone, but tells a pipe of
    a signal as it comes.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    self._wakeup = before, writes
    threading.Thread(target=_end_at_second, args=(reads,), daemon=True).start()


def _handler_of_second(before: Any) -> Any:
  """Returns what handles a second SIGINT: whatever did before the first one.

  But shells have jobs in the background ignore it: who sends them one means it.
  """
  return signal.SIG_DFL if before == signal.SIG_IGN else before


def _end_at_second(pipe: int) -> None:
  seen = 0
  while number := os.read(pipe, 1):
    seen += number[0] == signal.SIGINT
    if seen > 1:
      print('kdjax: ended at once, nothing more is saved', file=sys.stderr)
      os._exit(128 + signal.SIGINT)
  os.close(pipe)
