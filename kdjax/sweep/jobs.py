"""The runs of a sweep as commands, and the file that remembers them."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from kdjax import checks, files
from kdjax.config import Config
from kdjax.sweep import axes, names, sharing

FILE = 'sweep.json'
# What a job writes at its end, by its kind.
_RESULTS = {
  'train': 'results.json',
  'reference': 'evaluation.json',
  'analysis': 'analyses.json',
}

# A run has it or not by what else there is; it changes no more than rounding.
_SHARING = '--config.share_programs=True'


@dataclasses.dataclass(frozen=True)
class Job:
  """One command of a sweep.

  Attributes:
    name: of its workdir, within the sweep's folder.
    flags: of `kdjax.main`, except for the workdir.
    kind: 'train'; 'reference' scores the models that runs are compared with,
      and 'analysis' a run's student, in the run's own workdir.
    values: of the axes.
    seed: of the run.
    reference: the name of the job that it is compared with.
  """

  name: str
  flags: tuple[str, ...]
  kind: str = 'train'
  values: axes.Values = dataclasses.field(default_factory=dict)
  seed: int = 0
  reference: str = ''

  def done(self, out: pathlib.Path) -> bool:
    """Whether its results are there."""
    return (out / self.name / _RESULTS[self.kind]).exists()

  def arguments(self, out: pathlib.Path) -> list[str]:
    """Returns all flags of `kdjax.main`."""
    mode = ['--mode=evaluate'] if self.kind != 'train' else []
    return [*mode, *self.flags, f'--workdir={out / self.name}']

  def command(self, out: pathlib.Path) -> str:
    """Returns the command as one types it."""
    return shlex.join(['python', '-m', 'kdjax.main', *self.arguments(out)])


@dataclasses.dataclass(frozen=True)
class Sweep:
  """All jobs of a sweep: references, runs (a seed at a time), analyses."""

  config: str
  axes: dict[str, list[axes.Value]]
  seeds: list[int]
  references: tuple[Job, ...]
  runs: tuple[Job, ...]
  analyses: tuple[Job, ...] = ()

  @property
  def jobs(self) -> tuple[Job, ...]:
    """All, in an order in which they can run."""
    return self.references + self.runs + self.analyses

  def save(self, out: pathlib.Path) -> 'Sweep':
    """Writes `sweep.json`, and returns the sweep with what it held before.

    Further values and seeds of a sweep join those that are there.

    Raises:
      ValueError: the folder is of another config, or a job that is there
        already had other flags.
    """
    both = self
    if (out / FILE).exists():
      both = _join(Sweep.load(out), self, out)
    out.mkdir(parents=True, exist_ok=True)
    files.write(out / FILE, json.dumps(both.as_dict(), indent=1) + '\n')
    return both

  @classmethod
  def load(cls, out: pathlib.Path) -> 'Sweep':
    """Reads `sweep.json`."""
    found = json.loads((out / FILE).read_text())
    jobs = {
      group: tuple(
        Job(**{**each, 'flags': tuple(each['flags']), 'kind': kind})
        for each in found[group]
      )
      for group, kind in _GROUPS.items()
    }
    return cls(found['config'], found['axes'], found['seeds'], **jobs)

  def as_dict(self) -> dict[str, Any]:
    """Returns what `sweep.json` holds."""
    found = dataclasses.asdict(self)
    for group in _GROUPS:
      for job in found[group]:
        del job['kind']
    return found


# The fields of a sweep, and the kind of the jobs in each.
_GROUPS = {'references': 'reference', 'runs': 'train', 'analyses': 'analysis'}


def plan(
  config: str,
  along: Sequence[axes.Axis] = (),
  seeds: Iterable[int] = (0,),
  flags: Sequence[str] = (),
  analyses: str = '',
) -> Sweep:
  """Returns the jobs of a sweep, each of whose configs is right.

  The teacher and the undistilled student are scored once, by a reference, and
  not by every run.

  Args:
    config: a config file, with arguments after a colon. Where it has a function
      `sweep(add)`, the axes multiply what that adds.
    along: the axes.
    seeds: each setting is run with every one.
    flags: for all runs, such as '--config.steps=100'.
    analyses: of every run's student, such as 'exposure_bias,temperatures'.

  Raises:
    FileNotFoundError: there is no such config file.
    ValueError: listing all names and values that are wrong, and settings that
      are one and the same.
  """
  settings = axes.product(axes.of_config(config), along)
  if any('seed' in setting for setting in settings):
    raise ValueError('axis seed: give the number of seeds with --seeds')
  analysing = [f'--config.eval.analyses={analyses}'] if analyses else []
  flagged, views = _checked(config, settings, flags, analysing)
  seeds = list(dict.fromkeys(seeds))
  references, of = _references(views, flagged)
  shares = sharing.shares(views)
  runs = [
    Job(
      name=_folder({**settings[i], 'seed': seed}),
      flags=(
        *flagged[i],
        f'--config.seed={seed}',
        '--config.eval.references=False',
        *([_SHARING] if i in shares else []),
      ),
      values=settings[i],
      seed=seed,
      reference=of[i],
    )
    for seed, i in itertools.product(seeds, flagged)
  ]
  analysed = [
    dataclasses.replace(run, flags=(*run.flags, *analysing), kind='analysis')
    for run in runs
    if analysing
  ]
  spans: dict[str, list[axes.Value]] = {}
  for setting in settings:
    for name, value in setting.items():
      spans.setdefault(name, [])
      spans[name] += [value] if value not in spans[name] else []
  return Sweep(config, spans, seeds, references, tuple(runs), tuple(analysed))


def _checked(
  config: str,
  settings: Sequence[axes.Values],
  further: Sequence[str],
  analysing: Sequence[str],
) -> tuple[dict[int, list[str]], dict[int, Config]]:
  """Returns the flags and the config of each setting, by its number."""
  known, flagged, views = names.Names(config), {}, {}
  wrong: dict[str, list[str]] = {}
  for i, setting in enumerate(settings):
    try:
      flagged[i] = [*known.flags(setting), *further]
      views[i] = checks.validate(names.load(flagged[i]))
      checks.validate(names.load([*flagged[i], *analysing]), 'evaluate')
    except ValueError as error:
      for problem in getattr(error, 'problems', [str(error)]):
        wrong.setdefault(problem, []).append(names.describe(setting))
  for problem in _twins(settings, views):
    wrong[problem] = []
  if wrong:
    raise ValueError(
      f'{len(settings)} setting(s) have {len(wrong)} problem(s):\n  '
      + '\n  '.join(_told(problem, where) for problem, where in wrong.items())
    )
  return flagged, views


def _told(problem: str, where: Sequence[str]) -> str:
  """A problem, and the settings that have it."""
  if not any(where):
    return problem
  others = f' and {len(where) - 1} more' if len(where) > 1 else ''
  return f'{problem} ({where[0]}{others})'


def _twins(
  settings: Sequence[axes.Values], views: dict[int, Config]
) -> list[str]:
  """Settings whose configs are the same: some axis does nothing to them."""
  first: dict[str, int] = {}
  found = []
  for i, view in views.items():
    same = first.setdefault(repr(view), i)
    if same != i:
      one, other = (names.describe(settings[k]) for k in (same, i))
      found.append(f'{other} is the same run as {one}')
  return found


def _references(
  views: dict[int, Config], flagged: dict[int, list[str]]
) -> tuple[tuple[Job, ...], dict[int, str]]:
  """One job for all settings with the same models, data and evaluation."""
  found: dict[str, Job] = {}
  of = {}
  for i, view in views.items():
    scored = dataclasses.replace(view.eval, every=0, examples=0, split='')
    key = repr([view.task, view.student, view.teacher, scored])
    if key not in found:
      number = f'-{len(found) + 1}' if found else ''
      found[key] = Job(f'reference{number}', tuple(flagged[i]), 'reference')
    of[i] = found[key].name
  return tuple(found.values()), of


def _folder(values: axes.Values) -> str:
  """A folder's name for a setting, short and of plain characters."""
  name = re.sub(r'[^\w.=,+-]', '_', names.describe(values))
  if len(name) > 150 or name != names.describe(values):
    digest = hashlib.sha256(names.describe(values).encode()).hexdigest()[:8]
    name = f'{name[:140]}-{digest}'
  return name


def _join(old: Sweep, more: Sweep, out: pathlib.Path) -> Sweep:
  if old.config != more.config:
    raise ValueError(
      f'{out} holds a sweep of --config={old.config}, and this one is of '
      f'--config={more.config}: name another folder with --out'
    )
  jobs = {}
  for job in (*old.jobs, *more.jobs):
    before = jobs.setdefault((job.kind, job.name), job)
    if not {*before.flags} ^ {*job.flags} <= {_SHARING}:
      raise ValueError(
        f'{out / job.name} is there with other flags,\n  '
        f'{shlex.join(before.flags)}\nand this sweep would run it with\n  '
        f'{shlex.join(job.flags)}\nName another folder by --out'
      )
  spans = {
    name: list(
      dict.fromkeys([*old.axes.get(name, ()), *more.axes.get(name, ())])
    )
    for name in {**old.axes, **more.axes}
  }
  groups = {
    group: tuple(job for job in jobs.values() if job.kind == kind)
    for group, kind in _GROUPS.items()
  }
  seeds = list(dict.fromkeys([*old.seeds, *more.seeds]))
  return Sweep(old.config, spans, seeds, **groups)
