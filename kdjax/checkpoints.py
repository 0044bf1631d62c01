"""Checkpoints: everything that touches orbax, and the claim on a workdir."""

import asyncio
import fnmatch
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

logger = logging.getLogger(__name__)

_preserve = ocp.training.preservation_policies


class _Position:
  """A data iterator, as orbax wants one: its state as JSON.

  It is the same in every process; the first one writes it.
  """

  _NAME = 'position.json'

  def __init__(self, iterator=None):
    self._iterator = iterator
    self.state = None

  async def save(self, directory):
    # The state is read here, in the caller's thread; only the writing waits.
    state = json.dumps(self._iterator.get_state())

    async def write():
      path = epath.Path(await directory.await_creation()) / self._NAME
      if jax.process_index() == 0:
        await asyncio.to_thread(path.write_text, state)

    return write()

  async def load(self, directory):
    async def read():
      path = epath.Path(directory) / self._NAME
      self.state = json.loads(await asyncio.to_thread(path.read_text))

    return read()


class Checkpoints:
  """The checkpoints of a run: written in the background, restored exactly.

  A step holds the state, the data position and the evaluation's metrics, and
  appears only once whole: what a killed process left unfinished is ignored, and
  removed at the next start. Evaluate before saving, so that the metrics are
  those of the saved parameters.

  Attributes:
    directory: `workdir`/checkpoints.
  """

  def __init__(
    self,
    workdir: str,
    *,
    every: int = 1000,
    keep_last: int = 3,
    keep_best: int = 1,
    best_metric: str = 'eval/rouge2',
    best_mode: str = 'max',
    read_only: bool = False,
  ):
    """Opens the checkpoints of `workdir`; makes the directory if need be.

    Args:
      workdir: where the run writes.
      every: steps between checkpoints, for `due`.
      keep_last: how many of the latest steps stay.
      keep_best: how many of the best steps stay beside them.
      best_metric: the metric that ranks steps; those without it rank last, as
        do those where it isn't finite. Of equals, the later is the better.
      best_mode: 'max' or 'min'.
      read_only: leaves alone what a run that still goes on is writing.

    Raises:
      ValueError: an impossible value.
    """
    if best_mode not in ('max', 'min'):
      raise ValueError(f"best_mode={best_mode!r}: must be 'max' or 'min'")
    if every < 1 or keep_last < 1 or keep_best < 0:
      raise ValueError(
        f'every={every} and keep_last={keep_last} must be at least 1, '
        f'keep_best={keep_best} at least 0'
      )
    # Orbax takes absolute paths alone.
    self.directory = epath.Path(os.path.abspath(workdir)) / 'checkpoints'
    self._every, self._best_metric = every, best_metric
    self._sign = 1.0 if best_mode == 'max' else -1.0
    best = _preserve.BestN(
      get_metric_fn=self._score,
      n=keep_best,
      keep_checkpoints_without_metrics=False,
    )
    self._checkpointer = ocp.training.Checkpointer(
      self.directory,
      preservation_policy=_preserve.AnyPreservationPolicy(
        [_preserve.LatestN(keep_last), best]
      ),
      cleanup_tmp_directories=not read_only,
    )

  def _score(self, metrics: Mapping[str, float] | None) -> float:
    value = (metrics or {}).get(self._best_metric, math.nan)
    return self._sign * value if math.isfinite(value) else -math.inf

  @property
  def steps(self) -> list[int]:
    """The steps that can be restored, ascending."""
    return [each.step for each in self._checkpointer.checkpoints]

  @property
  def latest(self) -> int | None:
    """The last step, or None where there is none."""
    return max(self.steps, default=None)

  @property
  def best(self) -> int | None:
    """The best step that is kept, or None where no step has the metric."""
    scores = {
      each.step: self._score(each.metrics)
      for each in self._checkpointer.checkpoints
    }
    best = max(scores, key=lambda step: (scores[step], step), default=None)
    return best if scores.get(best, -math.inf) > -math.inf else None

  def metrics(self, step: int) -> dict[str, float]:
    """Returns the metrics that were saved with a step."""
    found = {e.step: e.metrics for e in self._checkpointer.checkpoints}
    return dict(found[step] or {})

  def due(self, step: int) -> bool:
    """Returns whether a checkpoint is to be saved after `step` updates."""
    return step > 0 and step % self._every == 0

  def save(
    self,
    step: int,
    state: Any,
    data: Any,
    metrics: Mapping[str, float] | None = None,
  ) -> bool:
    """Starts to save a step, and returns once `state` may be donated.

    An earlier save that still runs is waited for; if it failed, its error is
    raised here.

    Args:
      step: updates done.
      state: a pytree of arrays, typed keys among them.
      data: a grain iterator, or any object with `get_state() -> JSON values`
        and `set_state`.
      metrics: what evaluation found for `state`.

    Returns:
      False where the step is there already; it is left as it is.
    """
    if step in self.steps:
      return False
    if metrics and self._best_metric not in metrics:
      logger.warning(
        'step %d has no metric %r to rank it by, only %s',
        step,
        self._best_metric,
        sorted(metrics),
      )
    self._checkpointer.save_checkpointables_async(
      step,
      {'state': state, 'data': _Position(data)},
      force=True,
      metrics=metrics and {k: float(v) for k, v in metrics.items()},
    )
    return True

  def restore(
    self, abstract: Any, data: Any = None, step: int | None = None
  ) -> tuple[int, Any]:
    """Returns a saved step's number and state; sets `data` to its position.

    Args:
      abstract: the state's shapes, dtypes and shardings (see `abstract`).
      data: the iterator to set, or None to leave the data alone.
      step: default the latest.

    Raises:
      ValueError: the step isn't there, or holds arrays of other paths, shapes
        or dtypes; nothing is changed.
    """
    self.wait()
    step = self.latest if step is None else step
    if step not in self.steps:
      raise ValueError(
        f'no checkpoint of step {step} in {self.directory}; '
        f'there are {self.steps}'
      )
    self._check_shapes(step, abstract)
    wanted, position = {'state': abstract}, _Position()
    if data is not None:
      wanted['data'] = position
    state = self._checkpointer.load_checkpointables(step, wanted)['state']
    state = jax.tree.map(_sharded_as_asked, state, abstract)
    if data is not None:
      data.set_state(position.state)
    return step, state

  def _check_shapes(self, step: int, abstract: Any):
    try:
      saved = _shapes(self._checkpointer.metadata(step).metadata)
    except Exception as error:
      raise ValueError(
        f'the checkpoint {self.directory / str(step)} cannot be read '
        f'({error}); delete that directory to go on from another of '
        f'{self.steps}'
      ) from error
    asked = _shapes(abstract)
    problems = [
      f'  {path}: checkpoint {saved.get(path, "has none")}, '
      f'model {asked.get(path, "has none")}'
      for path in sorted(set(saved) | set(asked))
      if saved.get(path) != asked.get(path)
    ]
    if problems:
      raise ValueError(
        f'{self.directory / str(step)} is a checkpoint of another shape, of '
        f'another model or optimizer. {len(problems)} arrays differ:\n'
        + '\n'.join(problems[:20])
        + '\n  ...' * (len(problems) > 20)
        + '\nRun with the config that wrote it, or with another --workdir.'
      )

  def wait(self):
    """Waits until what was saved is whole, and raises what went wrong."""
    self._checkpointer.wait()

  def close(self):
    """Waits, and lets go of the threads."""
    self._checkpointer.close()

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()


def abstract(state: Any) -> Any:
  """Returns the shapes, dtypes and shardings of a tree of arrays."""

  def leaf(x):
    sharding = getattr(x, 'sharding', None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(leaf, state)


def _sharded_as_asked(array: Any, asked: jax.ShapeDtypeStruct) -> Any:
  """Mends typed keys: orbax gives them the sharding of the integers inside."""
  is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
  if not is_key or asked.sharding is None:
    return array
  return jax.device_put(array, asked.sharding)


def _shapes(tree: Any) -> dict[str, str]:
  """Returns 'dtype[shape]' by path, for arrays and orbax's metadata alike."""
  shapes = {}
  leaves = jax.tree_util.tree_leaves_with_path(
    tree, is_leaf=lambda x: hasattr(x, 'shape')
  )
  for path, leaf in leaves:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.eval_shape(jax.random.key_data, leaf)
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    shapes[name] = f'{leaf.dtype}{list(leaf.shape)}'
  return shapes


def claim(
  workdir: str, config: Mapping[str, Any], harmless: Sequence[str] = ()
):
  """Writes config.json into a fresh workdir, or checks the one that is there.

  Args:
    workdir: where the run writes; made if need be.
    config: JSON values, nested by name.
    harmless: patterns of dotted keys that may differ from the config that wrote
      the workdir ('log.*'); config.json then takes their values over.

  Raises:
    ValueError: as `check_claim` does.
  """
  check_claim(workdir, config, harmless)
  if jax.process_index() == 0:
    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    partial = workdir / 'config.json.partial'
    partial.write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')
    partial.replace(workdir / 'config.json')


def check_claim(
  workdir: str, config: Mapping[str, Any], harmless: Sequence[str] = ()
):
  """Checks a workdir as `claim` does, and changes nothing.

  Raises:
    ValueError: the workdir belongs to a run with another config, or to one
      unknown. The message lists every key that differs. Or it is a bucket.
  """
  if '://' in str(workdir):
    raise ValueError(
      f'--workdir={workdir}: give a directory, as metrics are appended to '
      'files. A bucket can be mounted as one.'
    )
  workdir = epath.Path(workdir)
  path = workdir / 'config.json'
  if path.exists():
    _compare(path, json.loads(json.dumps(config)), harmless)
  elif any((workdir / 'checkpoints').glob('[0-9]*')):
    raise ValueError(
      f'{workdir} holds checkpoints but no config.json that says which '
      'config wrote them. Give another --workdir, or delete this one.'
    )


def _compare(path: epath.Path, config: Any, harmless: Sequence[str]):
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f'{path} is not JSON ({error}). Give another --workdir, or delete this '
      'one.'
    ) from error
  old, new = _flatten(found), _flatten(config)
  differing = [
    f'  {key}: {old.get(key, "(absent)")} → {new.get(key, "(absent)")}'
    for key in sorted(set(old) | set(new))
    if old.get(key) != new.get(key)
    and not any(fnmatch.fnmatchcase(key, each) for each in harmless)
  ]
  if differing:
    raise ValueError(
      f'{path.parent} was written by another config. What differs '
      '(there → asked for):\n' + '\n'.join(differing) + '\nGive another '
      '--workdir to start afresh, delete this one, or run the config that '
      'wrote it to go on.'
    )


def _flatten(tree: Any, prefix: str = '') -> dict[str, str]:
  """Returns the JSON of each leaf by dotted key; lists are leaves."""
  if not isinstance(tree, dict) or not tree:
    return {prefix: json.dumps(tree, sort_keys=True)}
  flat = {}
  for key, value in tree.items():
    flat |= _flatten(value, f'{prefix}.{key}' if prefix else key)
  return flat
