"""The checkpoints of a run: saved in the background, never half, checked."""

import concurrent.futures
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

import kdjax
from kdjax import distributed, files, workdirs
from kdjax.checkpoints import arrays, folder, seals
from kdjax.checkpoints.position import Position

logger = logging.getLogger(__name__)

# What fails in orbax's threads it logs with a stack of calls, and raises again
# for whoever waits for it: once is enough.
logging.getLogger('absl').addFilter(
  lambda record: '_SignalingThread' not in record.getMessage()
)

Metrics = Mapping[str, float] | None


class Checkpoints:
  """The checkpoints of a run: written in the background, restored exactly.

  A step holds the state, the data position and the evaluation's metrics. It
  counts once it is sealed (see `seals`), and only then do older ones go: of
  what a killed process left unfinished nothing is read. What is restored is
  checked first, and where it is damaged the next older one takes its place,
  with a warning. Evaluate before saving, so that the metrics are those of the
  saved parameters.

  Attributes:
    directory: `workdir`/checkpoints.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    every: int = 1000,
    keep_last: int = 3,
    keep_best: int = 1,
    best_metric: str = 'eval/rouge2',
    best_mode: str = 'max',
    config: Mapping[str, Any] | None = None,
    harmless: Sequence[str] = (),
    read_only: bool = False,
  ):
    """Opens the checkpoints of a workdir; makes the directory if need be.

    Args:
      workdir: where the run writes.
      every: steps between checkpoints, for `due`.
      keep_last: how many of the latest steps stay.
      keep_best: how many of the best steps stay beside them.
      best_metric: the metric that ranks steps; those without it rank last, as
        do those where it isn't finite. Of equals, the later is the better.
      best_mode: 'max' or 'min'.
      config: of the run, as JSON values. Checkpoints of another one are
        refused.
      harmless: patterns of its dotted keys that may differ.
      read_only: leaves alone what a run that still goes on is writing.

    Raises:
      ValueError: an impossible value, or no checkpoint of the run is whole.
    """
    if best_mode not in ('max', 'min'):
      raise ValueError(f"best_mode={best_mode!r}: must be 'max' or 'min'")
    if every < 1 or keep_last < 1 or keep_best < 0:
      raise ValueError(
        f'every={every} and keep_last={keep_last} must be at least 1, '
        f'keep_best={keep_best} at least 0'
      )
    # Orbax takes absolute paths alone.
    self.directory = pathlib.Path(os.path.abspath(workdir)) / 'checkpoints'
    self._every, self._best_metric = every, best_metric
    self._keep_last, self._keep_best = keep_last, keep_best
    self._sign = 1.0 if best_mode == 'max' else -1.0
    self._config, self._harmless = config, harmless
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._saving: concurrent.futures.Future | None = None
    # Checked already: it takes as long as to read it.
    self._checked: int | None = None
    if not read_only:
      if distributed.leads():
        self._checked = folder.tidy(self.directory, every)
      distributed.meet('checkpoints are tidied')
    self._metrics, self._unsealed = folder.sealed(self.directory)

  def _score(self, step: int) -> float:
    value = (self._metrics[step] or {}).get(self._best_metric, math.nan)
    return self._sign * value if math.isfinite(value) else -math.inf

  @property
  def steps(self) -> list[int]:
    """The steps that are sealed, ascending."""
    return sorted(self._metrics)

  @property
  def empty(self) -> bool:
    """Whether there is no step, neither sealed nor without a seal."""
    return not self._metrics and not self._unsealed

  @property
  def latest(self) -> int | None:
    """The last step, or None where there is none."""
    return max(self._metrics, default=None)

  @property
  def best(self) -> int | None:
    """The best step that is kept, or None where no step has the metric."""
    return next(iter(self._ranked()), None)

  def _ranked(self) -> list[int]:
    """The steps that have the metric, the best first."""
    scores = {step: self._score(step) for step in self._metrics}
    known = [step for step in scores if scores[step] > -math.inf]
    return sorted(known, key=lambda step: (-scores[step], -step))

  def metrics(self, step: int) -> dict[str, float]:
    """Returns the metrics that were saved with a step."""
    return dict(self._metrics[step] or {})

  def due(self, step: int) -> bool:
    """Returns whether a checkpoint is to be saved after that many steps."""
    return step > 0 and step % self._every == 0

  def save(
    self, step: int, state: Any, data: Any, metrics: Metrics = None
  ) -> bool:
    """Starts to save a step, and returns once `state` may be donated.

    An earlier save that still runs is waited for; if it failed, its error is
    raised here.

    Args:
      step: how many are done.
      state: a pytree of arrays, typed keys among them.
      data: a grain iterator, or any object with `get_state() -> JSON values`
        and `set_state`.
      metrics: what evaluation found for `state`.

    Returns:
      False where the step is there already; it is left as it is.

    Raises:
      OSError: the disk is full, or can't be written.
    """
    self.wait()
    if step in self._metrics:
      return False
    if metrics is not None:
      metrics = self._numbers(step, metrics)
    with files.disk_errors(self.directory):
      response = ocp.save_checkpointables_async(
        self._path(step), {'state': state, 'data': Position(data)}
      )
    self._saving = self._pool.submit(self._finish, response, step, metrics)
    return True

  def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds what evaluation found to a step that was saved without."""
    self.wait()
    metrics = self._numbers(step, metrics)
    if distributed.leads():
      seals.amend(self._path(step), metrics=metrics)
    self._metrics[step] = metrics

  def _numbers(
    self, step: int, metrics: Mapping[str, float]
  ) -> dict[str, float]:
    if self._best_metric not in metrics:
      logger.warning(
        'step %d has no metric %r to rank it by, only %s',
        step,
        self._best_metric,
        sorted(metrics),
      )
    return {name: float(value) for name, value in metrics.items()}

  def _finish(self, response: Any, step: int, metrics: Metrics) -> None:
    """Waits for a step, seals it, and removes those it takes the place of."""
    with files.disk_errors(self.directory):
      response.result()
      if distributed.leads():
        seals.write(
          self._path(step),
          {
            'step': step,
            'metrics': metrics,
            'kdjax': kdjax.__version__,
            'jax': jax.__version__,
            'config': self._config,
          },
        )
      self._metrics[step] = metrics
      kept = {*self.steps[-self._keep_last :]}
      kept |= {*self._ranked()[: self._keep_best]}
      for old in set(self._metrics) - kept:
        del self._metrics[old]
        if distributed.leads():
          folder.remove(self._path(old))

  def restore(
    self,
    template: Any,
    data: Any = None,
    *,
    step: int | None = None,
    best: bool = False,
  ) -> tuple[int, Any]:
    """Returns a saved step's number and state; sets `data` to its position.

    Where the step is damaged, the next one takes its place, with a warning.

    Args:
      template: the state's shapes, dtypes and shardings (see `abstract`).
      data: the iterator to set, or None to leave the data alone.
      step: this one and no other; default the latest.
      best: the best instead, or the latest where no step has the metric.

    Raises:
      ValueError: the step isn't there, or damaged, or it is of another config,
        or holds arrays of other paths, shapes or dtypes; nothing is changed.
    """
    self.wait()
    if step is not None and step not in self._metrics:
      raise ValueError(
        f'no checkpoint of step {step} in {self.directory}; '
        f'there are {self.steps}'
      )
    latest = reversed(self.steps)
    candidates = [*(self._ranked() if best else ()), *latest]
    step = self._whole([step] if step is not None else candidates)
    self._check_origin(step)
    self._check_shapes(step, template)
    wanted, position = {'state': template}, Position()
    if data is not None:
      wanted['data'] = position
    state = ocp.load_checkpointables(self._path(step), wanted)['state']
    state = jax.tree.map(arrays.sharded_as_asked, state, template)
    if data is not None:
      data.set_state(position.state)
    return step, state

  def _whole(self, candidates: Iterable[int]) -> int:
    """Returns the first step that is whole; warns of those that aren't."""
    damaged = {}
    for step in dict.fromkeys(candidates):
      # One process reads it all; what it found is what the others go by.
      problem = None
      if distributed.leads() and step != self._checked:
        problem = seals.problem(self._path(step))
      if not distributed.first(int(problem is not None)):
        folder.warn(damaged, step)
        return step
      damaged[step] = problem or 'see the first process'
    raise folder.none_whole(self.directory, {**damaged, **self._unsealed})

  def _check_origin(self, step: int) -> None:
    """Raises where a step is of another config, warns of other versions."""
    seal, path = seals.read(self._path(step)), self._path(step)
    theirs = seal.get('config')
    if self._config is not None and theirs is not None:
      found = workdirs.differences(theirs, self._config, self._harmless)
      if found:
        raise ValueError(
          f'{path} is a checkpoint of another config. What differs (there → '
          'asked for):\n  '
          + '\n  '.join(found)
          + '\nRun the config that wrote it, or give another --workdir.'
        )
    here = {'kdjax': kdjax.__version__, 'jax': jax.__version__}
    for name, version in here.items():
      if seal.get(name) != version:
        logger.warning(
          '%s was written with %s %s, and this is %s: the run goes on, but not '
          'bit by bit as it would have',
          path,
          name,
          seal.get(name),
          version,
        )

  def _check_shapes(self, step: int, template: Any):
    path = self._path(step)
    try:
      saved = ocp.metadata(path, checkpointable_name='state').metadata
    except Exception as error:
      raise ValueError(
        f'the checkpoint {path} cannot be read ({error}); delete that '
        f'directory to go on from another of {self.steps}'
      ) from error
    problems = [f'  {each}' for each in arrays.differences(saved, template)]
    if problems:
      raise ValueError(
        f'{path} is a checkpoint of another shape, of another model or '
        f'optimizer. {len(problems)} arrays differ:\n'
        + '\n'.join(problems[:20])
        + '\n  ...' * (len(problems) > 20)
        + '\nRun with the config that wrote it, or with another --workdir.'
      )

  def _path(self, step: int) -> pathlib.Path:
    return self.directory / str(step)

  def wait(self):
    """Waits until what was saved is whole, and raises what went wrong."""
    saving, self._saving = self._saving, None
    if saving is not None:
      saving.result()

  def close(self):
    """Waits, and lets go of the threads."""
    try:
      self.wait()
    finally:
      self._pool.shutdown()

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()
