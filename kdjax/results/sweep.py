"""The results of a sweep: settings, their metrics, and which is best."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax import evaluation
from kdjax.results import folder, intervals, reading, tables
from kdjax.results.examples import System
from kdjax.results.folder import AFTER, BEFORE, TEACHER, Run
from kdjax.results.intervals import Estimate

# Of results.json, what has no interval.
PLAIN = ('length', 'eos_fraction')


@dataclasses.dataclass(frozen=True)
class Setting:
  """The runs that differ in nothing but the seed.

  Attributes:
    values: of the axes, by name.
    runs: all of them, by seed.
    teacher, before: what they are compared with, None where not scored.
  """

  values: Mapping[str, Any]
  runs: tuple[Run, ...]
  teacher: System | None = None
  before: System | None = None

  @property
  def label(self) -> str:
    """Such as 'student_fraction=0.5, beta=0.1'."""
    return label(self.values) or self.runs[0].name

  @property
  def systems(self) -> dict[int, System]:
    """The students of the runs that are done, by seed."""
    return {
      run.seed: run.systems[AFTER] for run in self.runs if run.state == 'done'
    }

  def estimate(self, metric: str) -> Estimate:
    """Returns a metric over the seeds that are done."""
    return intervals.estimate(list(self.systems.values()), metric)

  def gain(self, metric: str) -> Estimate:
    """Returns what was gained over the undistilled student."""
    if self.before is None or not self.systems:
      return Estimate(float('nan'))
    students = list(self.systems.values())
    return intervals.difference([self.before], students, metric)

  def over(self, other: 'Setting', metric: str) -> Estimate:
    """Returns the gain over another setting, on the seeds of both."""
    seeds = [seed for seed in self.systems if seed in other.systems]
    if not seeds:
      return Estimate(float('nan'))
    before, after = (
      [each.systems[seed] for seed in seeds] for each in (other, self)
    )
    return intervals.difference(before, after, metric)


@dataclasses.dataclass(frozen=True)
class Best:
  """The best setting by a metric. As a string: a sentence or two.

  Attributes:
    metric: its name.
    setting: the best one.
    score: its mean over seeds. The best of many was also lucky: of settings
      that are equal in truth, the best one's mean lies above it.
    gain: over the undistilled student.
    runner_up: the second best setting, None if there is no other.
    over_runner_up: the gain over it.
    alike: the others that can't be told from the best: the 95% interval of
      their difference, seeds and examples paired, holds 0 or isn't known. Each
      is compared by itself: of 20 that are equal, one or two will look worse.
  """

  metric: str
  setting: Setting
  score: Estimate
  gain: Estimate
  runner_up: Setting | None
  over_runner_up: Estimate
  alike: tuple[Setting, ...]

  def __str__(self) -> str:
    return tables.sentence(self)


@dataclasses.dataclass(frozen=True)
class Results(folder.Folder):
  """The results of a sweep, or of a single run as a sweep of one.

  `runs` holds also those that failed or haven't ended; they are left out of the
  numbers.
  """

  @functools.cached_property
  def settings(self) -> tuple[Setting, ...]:
    """The settings, sorted by the axes' values."""
    groups: dict[str, list[Run]] = {}
    for run in self.runs:
      groups.setdefault(run.key, []).append(run)
    found = []
    for runs in groups.values():
      known = self.references.get(runs[0].reference, {})
      teacher, before = known.get(TEACHER), known.get(BEFORE)
      found.append(Setting(runs[0].values, tuple(runs), teacher, before))
    return tuple(found)

  def part(self, runs: Sequence[Run]) -> 'Results':
    """Returns the results of some of the runs, with the values that they have.

    What has been read of them isn't read again.
    """
    keys = {run.name for run in runs}
    runs = tuple(run for run in self.runs if run.name in keys)
    axes = {}
    for name, values in self.axes.items():
      own = [run.values[name] for run in runs if name in run.values]
      if own:
        axes[name] = [value for value in values if value in own]
    return dataclasses.replace(self, runs=runs, axes=axes)

  @functools.cached_property
  def grids(self) -> tuple['Results', ...]:
    """The parts in which all settings have the same axes.

    Several where a config's `sweep(add)` gives some settings an axis that
    others lack, such as one method of many its own.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in self.runs:
      own = tuple(name for name in self.axes if name in run.values)
      groups.setdefault(own, []).append(run)
    return tuple(self.part(runs) for runs in groups.values())

  @functools.cached_property
  def lines(self) -> dict[str, list[dict[str, Any]]]:
    """The lines of each run's metrics.jsonl, by the run's name."""
    found = {run.name: [] for run in self.runs}
    for run in self.runs:
      path = run.workdir / 'metrics.jsonl'
      if path.exists():
        growing = run.state != 'done'
        found[run.name] = reading.read_lines(path, growing=growing)
    return found

  @functools.cached_property
  def logged(self) -> frozenset[str]:
    """The names in them."""
    lines = (line for own in self.lines.values() for line in own)
    return frozenset(name for line in lines for name in line)

  @property
  def metrics(self) -> tuple[str, ...]:
    """The students' metrics, the main one first."""
    students = [run.scores for run in self.runs] or [{}]
    names = dict.fromkeys(name for scores in students for name in scores)
    return tuple(name for name in names if f'{name}_low' in names)

  def check(self, metric: str | None) -> str:
    """Returns a metric's name; None stands for the main one.

    Raises:
      ValueError: no run that is done has such a metric.
    """
    if not self.metrics:
      states = ', '.join(f'{run.name}: {run.state}' for run in self.runs[:3])
      raise ValueError(f'{self.path}: no run is done yet ({states}, ...).')
    known = (*self.metrics, *PLAIN)
    if metric is not None and metric not in known:
      raise ValueError(
        f'{self.path} has no metric {metric!r}; there are {", ".join(known)}.'
      )
    return metric or self.metrics[0]

  def table(self, metrics: Sequence[str] | None = None) -> Any:
    """Returns a data frame with one row per setting, the references first.

    These are the teacher and the undistilled student. Columns: 'system', one
    an axis, 'seeds' (how many are done); by metric '<metric>' (the mean over
    seeds), '_low' and '_high' (the 95% interval, see
    `kdjax.results.intervals`), '_sd' (over seeds), '_n' (the seeds that have
    it), '_over' (what was resampled); and '_gain', '_gain_low', '_gain_high'
    over the undistilled student.

    Args:
      metrics: names; None for all.
    """
    names = metrics or (*self.metrics, *PLAIN) * bool(self.metrics)
    return tables.table(self, [self.check(name) for name in names])

  def long(self) -> Any:
    """Returns a data frame: a run a row, with axes, state and metrics."""
    return tables.long(self)

  def curves(self, metric: str | None = None) -> Any:
    """Returns a data frame of a metric as it went, one row per run and step.

    Columns: 'run', one an axis, 'seed', 'step', 'seconds', 'sampled_tokens',
    'value', and 'low' and 'high', the interval over examples.

    Args:
      metric: of the validation examples, or a name in metrics.jsonl such as
        'loss'.

    Raises:
      ValueError: no run has it, or a line isn't JSON.
    """
    return tables.curves(self, metric or self.check(metric))

  def best(self, metric: str | None = None) -> Best:
    """Returns the best setting by a metric, None for the main one.

    Raises:
      ValueError: no run is done, or none has the metric.
    """
    metric = self.check(metric)
    sign = -1 if evaluation.lower_is_better(metric) else 1
    means = {i: x.estimate(metric) for i, x in enumerate(self.settings)}
    known = [i for i, found in means.items() if found.value == found.value]
    first, *others = sorted(known, key=lambda i: -sign * means[i].value)
    setting, rest = self.settings[first], [self.settings[i] for i in others]
    gains = [setting.over(each, metric) for each in rest]
    return Best(
      metric,
      setting,
      means[first],
      setting.gain(metric),
      rest[0] if rest else None,
      gains[0] if rest else Estimate(float('nan')),
      tuple(x for x, gain in zip(rest, gains) if not apart(gain)),
    )


def apart(gain: Estimate) -> bool:
  """Whether the interval of a difference leaves 0 out."""
  return gain.low > 0 or gain.high < 0


def label(values: Mapping[str, Any]) -> str:
  """Returns axes and values as text: 'student_fraction=0.5, beta=0.1'."""
  return ', '.join(f'{name}={value}' for name, value in values.items())


def load(path: str | os.PathLike) -> Results:
  """Reads a sweep's folder, or a single run's workdir as a sweep of one.

  Runs that failed or haven't ended are listed, and left out of the numbers.

  Raises:
    ValueError: there is neither, or a file isn't what it should be; the message
      names the file and, where it is one of JSON, the line.
  """
  return Results(**vars(folder.read(path)))
