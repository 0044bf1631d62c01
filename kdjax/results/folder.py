"""A sweep's folder, or a single run's, as it is read."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.results import reading
from kdjax.results.examples import System

TEACHER, BEFORE, AFTER = 'teacher', 'student before', 'student after'


@dataclasses.dataclass(frozen=True)
class Run:
  """One run.

  Attributes:
    name: as in sweep.json.
    values: of the axes, by name.
    seed: of the run.
    state: 'done', 'failed' or 'pending'.
    workdir: where it wrote.
    scores: of the student, by metric, with `<metric>_low` and `<metric>_high`;
      empty unless the run is done.
    systems: what results.json holds, by name: of a sweep's run the student
      alone, 'student after'.
    reference: which of the sweep's references it is compared with.
    reason: why it failed, else empty.
  """

  name: str
  values: Mapping[str, Any]
  seed: int
  state: str
  workdir: pathlib.Path
  systems: Mapping[str, System] = dataclasses.field(default_factory=dict)
  reference: str | None = None
  reason: str = ''

  @property
  def scores(self) -> Mapping[str, float]:
    return self.systems[AFTER].scores if AFTER in self.systems else {}

  @property
  def key(self) -> str:
    """The same for runs that differ in nothing but the seed."""
    return json.dumps(dict(self.values), sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Folder:
  """What a folder holds.

  Attributes:
    path: of the folder.
    axes: the values of each axis, in the order of sweep.json.
    runs: in an order that doesn't depend on that of sweep.json.
    references: what the runs are compared with, by name: the systems 'teacher'
      and 'student before', where they have been scored.
    source: the config's path, as in sweep.json; empty for a single run.
    config: of the first run that has one.
  """

  path: pathlib.Path
  axes: Mapping[str, Sequence[Any]]
  runs: tuple[Run, ...]
  references: Mapping[str | None, Mapping[str, System]]
  source: str = ''
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(path: str | os.PathLike) -> Folder:
  """Reads a sweep's folder, or a run's as a sweep of one.

  Raises:
    ValueError: there is neither, or a file isn't what it should be; the message
      names it.
  """
  path = pathlib.Path(path)
  if (path / 'sweep.json').exists():
    return _sweep(path)
  if any((path / n).exists() for n in ('config.json', 'results.json')):
    return _single(path)
  found = 'has neither' if path.is_dir() else 'is not a folder'
  raise ValueError(
    f'{path} {found}: expected a folder with a sweep.json, as launch/sweep.py '
    'writes it (--out), or the workdir of a run, with a config.json.'
  )


def _single(path: pathlib.Path) -> Folder:
  config = _config([path])
  run = _run(path, path.resolve().name, {}, config.get('seed', 0), None)
  known = {k: v for k, v in run.systems.items() if k != AFTER}
  return Folder(path, {}, (run,), {None: known}, config=config)


def _config(workdirs: Sequence[pathlib.Path]) -> dict[str, Any]:
  for workdir in workdirs:
    if (workdir / 'config.json').exists():
      return reading.read(workdir / 'config.json')
  return {}


def _sweep(path: pathlib.Path) -> Folder:
  file = path / 'sweep.json'
  sweep = reading.read(file)
  entries = sweep.get('runs') if isinstance(sweep, dict) else None
  if not entries or not isinstance(entries, list):
    raise ValueError(f"{file}: expected an object with a list of 'runs'.")
  runs = []
  for i, entry in enumerate(entries):
    missing = {'name', 'values', 'seed'} - set(entry)
    if missing:
      raise ValueError(f'{file}: runs[{i}] has no {sorted(missing)}.')
    name, values, seed = (entry[key] for key in ('name', 'values', 'seed'))
    run = _run(path / name, name, values, seed, entry.get('reference'))
    runs.append(run)
  axes = _axes(sweep.get('axes', {}), runs)
  runs.sort(key=lambda run: (order(axes, run.values), run.seed, run.name))
  references = {run.reference: _reference(path, run) for run in runs}
  # What there is no reference for, a run may have scored itself.
  for run in runs:
    own = {k: v for k, v in run.systems.items() if k != AFTER}
    references[run.reference] = own | references[run.reference]
  config = _config([run.workdir for run in runs])
  source = str(sweep.get('config', ''))
  return Folder(path, axes, tuple(runs), references, source, config)


def _run(
  workdir: pathlib.Path,
  name: str,
  values: Mapping[str, Any],
  seed: int,
  reference: str | None,
) -> Run:
  run = Run(name, values, seed, 'pending', workdir, reference=reference)
  results, failed = workdir / 'results.json', workdir / 'failed.txt'
  if results.exists():
    found = reading.read_scores(results)
    if AFTER not in found:
      raise ValueError(
        f'{results}: expected scores of {AFTER!r}, got those of {list(found)}.'
      )
    systems = {k: System(k, v, workdir, k) for k, v in found.items()}
    return dataclasses.replace(run, state='done', systems=systems)
  if failed.exists():
    reason = failed.read_text(encoding='utf-8').strip()
    return dataclasses.replace(run, state='failed', reason=reason)
  return run


def _reference(path: pathlib.Path, run: Run) -> dict[str, System]:
  if run.reference is None:
    return {}
  folder = path / run.reference
  if not (folder / 'evaluation.json').exists():
    return {}
  found = reading.read_scores(folder / 'evaluation.json')
  # The reference's student is the one that isn't distilled.
  names = {'teacher': TEACHER, 'student': BEFORE}
  return {
    names[key]: System(names[key], scores, folder, key)
    for key, scores in found.items()
    if key in names
  }


def _axes(
  declared: Mapping[str, Sequence[Any]], runs: Sequence[Run]
) -> dict[str, list[Any]]:
  """The axes with the values that runs have, numbers in their order."""
  names = dict.fromkeys(declared)
  names |= dict.fromkeys(sorted({name for r in runs for name in r.values}))
  found = {}
  for name in names:
    own = [run.values[name] for run in runs if name in run.values]
    known = list(declared.get(name, ()))
    rest = sorted((x for x in own if x not in known), key=str)
    values = [x for x in (*known, *rest) if x in own]
    values = list({json.dumps(x): x for x in values}.values())
    numbers = all(is_number(x) for x in values)
    found[name] = sorted(values) if numbers else values
  return found


def is_number(value: Any) -> bool:
  """Whether a value of an axis is one; a bool is a name."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def order(
  axes: Mapping[str, Sequence[Any]], values: Mapping[str, Any]
) -> tuple[float, ...]:
  """Returns a key by which settings are sorted, axis by axis."""
  return tuple(
    list(known).index(values[name]) if name in values else math.inf
    for name, known in axes.items()
  )
