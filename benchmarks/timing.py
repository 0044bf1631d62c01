"""Times variants in strict alternation, and says how sure the figures are.

A round takes one sample of every variant. Ratios are taken within a round, so
that a machine that slows down for a minute slows both sides of them. A sample
is dropped if other processes took more than a limit of the machine's CPU
meanwhile: OpenMP's barriers wait for a descheduled thread, so that such a
sample can be forty times too long.
"""

import dataclasses
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LIMIT = 0.1


@dataclasses.dataclass(frozen=True)
class Sample:
  """One measurement.

  Attributes:
    seconds: of one call.
    contention: share of the machine's CPU that other processes took meanwhile;
      NaN where the system doesn't tell.
  """

  seconds: float
  contention: float = math.nan


def busy_seconds() -> float:
  """Returns the CPU seconds that the machine has worked; NaN if unknown."""
  path = pathlib.Path('/proc/stat')
  if not path.exists():
    return math.nan
  # user nice system idle iowait irq softirq steal ...
  ticks = [int(x) for x in path.read_text().split('\n')[0].split()[1:9]]
  return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf('SC_CLK_TCK')


class Meter:
  """Measures the time from `start` to `stop`, and who else was at work."""

  def __init__(
    self,
    clock: Callable[[], float] = time.perf_counter,
    own: Callable[[], float] = time.process_time,
    busy: Callable[[], float] = busy_seconds,
    cores: int | None = None,
  ):
    self._read = lambda: (clock(), own(), busy())
    self._cores = cores or os.cpu_count() or 1
    self._begin = (0.0, 0.0, 0.0)

  def start(self) -> 'Meter':
    self._begin = self._read()
    return self

  def stop(self, calls: int = 1) -> Sample:
    """Returns the sample of `calls` calls since `start`."""
    passed, own, busy = (b - a for a, b in zip(self._begin, self._read()))
    # The system counts in ticks: shares are rough where samples are short.
    share = (busy - own) / (passed * self._cores)
    if not math.isnan(share):
      share = min(max(share, 0.0), 1.0)
    return Sample(passed / calls, share)


def measure(
  run: Callable[[], Any], calls: int = 1, meter: Meter | None = None
) -> Sample:
  """Times `calls` calls of a function that waits for its own results."""
  meter = (meter or Meter()).start()
  for _ in range(calls):
    run()
  return meter.stop(calls)


@dataclasses.dataclass(frozen=True)
class Spread:
  """A median, and how far the values lie apart.

  Attributes:
    median: of the values; NaN where there are none.
    low: the lower quartile, or the least ratio.
    high: the upper quartile, or the greatest ratio.
    n: how many values there are.
    dropped: how many more there would be but for others at work.
  """

  median: float
  low: float
  high: float
  n: int
  dropped: int = 0


@dataclasses.dataclass
class Rounds:
  """Samples of every variant, round by round.

  Attributes:
    samples: a dict a round, by variant.
    limit: of contention, above which a sample doesn't count.
  """

  samples: list[dict[str, Sample]]
  limit: float = LIMIT

  def clean(self, sample: Sample) -> bool:
    """Whether nobody disturbed it, as far as is known."""
    return not sample.contention > self.limit

  def values(self, name: str) -> list[float]:
    """Returns a variant's seconds where nobody disturbed it."""
    taken = [each[name] for each in self.samples]
    return [sample.seconds for sample in taken if self.clean(sample)]

  def seconds(self, name: str) -> Spread:
    """Returns a variant's median seconds, with quartiles."""
    values = self.values(name)
    low, median, high = quartiles(values)
    dropped = len(self.samples) - len(values)
    return Spread(median, low, high, len(values), dropped)

  def ratios(self, name: str, base: str) -> Spread:
    """Returns how many times as long `name` takes as `base`, with the range."""
    values = [
      each[name].seconds / each[base].seconds
      for each in self.samples
      if self.clean(each[name]) and self.clean(each[base])
    ]
    dropped = len(self.samples) - len(values)
    if not values:
      return Spread(math.nan, math.nan, math.nan, 0, dropped)
    middle = statistics.median(values)
    return Spread(middle, min(values), max(values), len(values), dropped)


def alternate(
  variants: Mapping[str, Callable[[], Sample]],
  rounds: int,
  *,
  limit: float = LIMIT,
  warmup: int = 1,
  patience: int = 3,
  pause: float = 0.05,
) -> Rounds:
  """Takes rounds of one sample a variant.

  Goes on until every variant has `rounds` clean samples, or `patience` times as
  many rounds have been made. Each round begins with another variant.

  Args:
    variants: functions that take a sample, by name.
    rounds: how many clean samples of each are wanted.
    limit: of contention.
    warmup: rounds that aren't counted: compilation, caches.
    patience: see above.
    pause: seconds between samples, in which the threads of the last one go to
      sleep.
  """
  names, found = list(variants), Rounds([], limit)
  for i in range(-warmup, patience * rounds):
    shift = i % len(names)
    taken = {}
    for name in names[shift:] + names[:shift]:
      time.sleep(pause)
      taken[name] = variants[name]()
    if i >= 0:
      found.samples.append(taken)
      if all(len(found.values(name)) >= rounds for name in names):
        break
  return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
  """Returns the quartiles, interpolated.

  >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
  (2.0, 3.0, 4.0)
  """
  if len(values) < 2:
    return (values[0] if values else math.nan,) * 3
  return tuple(statistics.quantiles(values, n=4, method='inclusive'))
