"""Means as (sum, count) pairs, the metrics file, TensorBoard, and clocks."""

import contextlib
import json
import logging
import math
import os
import pathlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from kdjax import types

logger = logging.getLogger(__name__)


@types.struct
class Mean:
  """A mean that isn't taken yet, so that it adds up exactly over batches.

  Attributes:
    total: [] sum of the values.
    count: [] how many there are.
  """

  total: Any
  count: Any

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.count + other.count)

  @property
  def value(self) -> float:
    """total / count on the host; NaN where nothing was counted."""
    count = float(self.count)
    return float(self.total) / count if count else math.nan


def accumulate(
  metrics: Mapping[str, Any] | None, more: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the union of two dicts of metrics, on the host, in float64.

  Means and (sum, count) pairs add up; of plain values the later one stays.
  """
  result = dict(metrics or {})
  for name, metric in jax.device_get(dict(more)).items():
    if isinstance(metric, (Mean, tuple)):
      metric = _float64(metric)
      metric = result[name] + metric if name in result else metric
    result[name] = metric
  return result


def _float64(metric: Mean | tuple[Any, Any]) -> Mean:
  pair = metric if isinstance(metric, tuple) else (metric.total, metric.count)
  return Mean(*(np.float64(each) for each in pair))


def summarize(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Returns every metric as a float: means taken, arrays fetched."""
  summary = accumulate(None, metrics)
  return {
    name: metric.value if isinstance(metric, Mean) else float(metric)
    for name, metric in summary.items()
  }


class Writer:
  """Writes metrics.jsonl and TensorBoard events, in process 0 only.

  A line of metrics.jsonl is a JSON object: 'step', and the metrics by name.
  What isn't finite stands as null, and 'nonfinite' says what it was.
  """

  def __init__(self, workdir: str | os.PathLike, start: int = 0):
    """Opens the files in `workdir`.

    Args:
      workdir: where the run writes; made if need be.
      start: the first step that is to come. A run that was cut short may have
        written steps that will be written again: these lines go, as does a last
        line that was cut short.
    """
    self._file = self._events = None
    if jax.process_index() != 0:
      return
    import tensorboardX

    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'metrics.jsonl'
    _drop_steps_from(path, start)
    self._file = path.open('a', encoding='utf-8')
    self._events = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=start or None
    )

  def write(self, step: int, metrics: Mapping[str, Any]):
    """Writes numbers, arrays of one number, means and pairs of a step."""
    if self._file is None:
      return
    values = summarize(metrics)
    for name, value in values.items():
      self._events.add_scalar(name, value, step)
    bad = {k: str(v) for k, v in values.items() if not math.isfinite(v)}
    line = {'step': int(step)}
    line |= {k: None if k in bad else v for k, v in values.items()}
    if bad:
      line['nonfinite'] = bad
    self._file.write(json.dumps(line, allow_nan=False) + '\n')
    self._file.flush()

  def write_text(self, step: int, name: str, text: str):
    """Writes a text of a step to TensorBoard."""
    if self._events is not None:
      self._events.add_text(name, text, step)

  def close(self):
    """Closes the files."""
    if self._file is not None:
      self._file.close()
      self._events.close()


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns the lines of a workdir's metrics.jsonl; null is read as NaN."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  lines = [line for _, line in _parsed(path)]
  return [
    {k: math.nan if v is None else v for k, v in line.items()} for line in lines
  ]


def latest(workdir: str | os.PathLike) -> dict[str, Any]:
  """Returns all names of a workdir's metrics.jsonl, each with its last value.

  Empty where there is no such file yet.
  """
  if not (pathlib.Path(workdir) / 'metrics.jsonl').exists():
    return {}
  return {k: v for line in read(workdir) for k, v in line.items()}


def _parsed(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (text, object) of the lines that are whole."""
  for number, text in enumerate(path.read_text('utf-8').splitlines(), 1):
    try:
      yield text, json.loads(text)
    except ValueError:
      logger.warning('%s: line %d was cut short, dropped', path, number)


def _drop_steps_from(path: pathlib.Path, start: int):
  if not path.exists():
    return
  kept = [text + '\n' for text, line in _parsed(path) if line['step'] < start]
  partial = path.with_name(path.name + '.partial')
  partial.write_text(''.join(kept), encoding='utf-8')
  partial.replace(path)


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

  def __init__(self, before: Mapping[str, float], clock=time.perf_counter):
    """Goes on from `before`, what `report` returned last."""
    self._clock = clock
    self._totals = np.array([before.get(name, 0.0) for name in self._NAMES])
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


def progress_bar(total: int, initial: int = 0, **options: Any):
  """Returns a tqdm bar with ETA; silent unless stderr is a terminal."""
  import tqdm

  disable = None if jax.process_index() == 0 else True
  return tqdm.tqdm(
    total=total,
    initial=initial,
    disable=disable,
    dynamic_ncols=True,
    **options,
  )
