"""What time a run takes, and what for."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kdjax import distributed


class Throughput:
  """Seconds and tokens per second: of steps, and of phases if these are timed.

  Devices run behind the host. A step is measured from lap to lap, for which
  nothing waits; a phase is measured right only if its last line waits for its
  results (`jax.block_until_ready`). The first lap compiles, and isn't counted.
  """

  def __init__(self, clock=time.perf_counter):
    self._clock = clock
    self._began: float | None = None
    self._phases: dict[str, float] = {}
    self._start_over()

  def _start_over(self):
    self._laps, self._seconds, self._tokens = 0, Counter(), Counter()

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Adds the time that the block takes to a phase of this lap."""
    begin = self._clock()
    yield
    seconds = self._clock() - begin
    self._phases[name] = self._phases.get(name, 0.0) + seconds

  def lap(self, tokens: Mapping[str, float]):
    """Ends a step, once its results are there.

    Args:
      tokens: how many the 'step' and its phases were about, by name.
    """
    now, phases = self._clock(), self._phases
    if self._began is not None:
      self._laps += 1
      self._seconds.update({**phases, 'step': now - self._began})
      self._tokens.update(tokens)
    self._began, self._phases = now, {}

  def restart(self):
    """Leaves what was done since the last lap out of the next one."""
    if self._began is not None:
      self._began = self._clock()

  def report(self) -> dict[str, float]:
    """Returns 'seconds/…' a lap and 'tokens_per_second/…'; starts over."""
    result = {}
    for name, seconds in self._seconds.items():
      result[f'seconds/{name}'] = seconds / self._laps
      if self._tokens[name] and seconds > 0:
        result[f'tokens_per_second/{name}'] = self._tokens[name] / seconds
    self._start_over()
    return result


class Spent:
  """What training has taken so far, also before it was resumed.

  Seconds are those of steps, and not of what else a run does: evaluations,
  checkpoints, and what is compiled before the first step.
  """

  _NAMES = ('total/seconds', 'total/sampled_tokens', 'total/learned_tokens')

  def __init__(self, clock=time.perf_counter):
    self._clock = clock
    self._totals = np.zeros(len(self._NAMES))
    self.restart()

  def restart(self):
    """Leaves what was done since the last step out."""
    self._began = self._clock()

  def step(self, sampled_tokens: float, learned_tokens: float):
    """Adds a step that has just ended."""
    now = self._clock()
    self._totals += now - self._began, sampled_tokens, learned_tokens
    self._began = now

  def report(self) -> dict[str, float]:
    """Returns 'total/seconds', '…/sampled_tokens' and '…/learned_tokens'."""
    return dict(zip(self._NAMES, self._totals.tolist()))

  def set_state(self, report: Mapping[str, float]):
    """Goes on from what `report` returned last."""
    self._totals = np.array([report[name] for name in self._NAMES])


def progress_bar(total: int, initial: int = 0, **options: Any):
  """Returns a tqdm bar with ETA; silent unless stderr is a terminal."""
  import tqdm

  disable = None if distributed.leads() else True
  return tqdm.tqdm(
    total=total,
    initial=initial,
    disable=disable,
    dynamic_ncols=True,
    **options,
  )
