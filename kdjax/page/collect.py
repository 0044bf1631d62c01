"""What a page shows of a run or a sweep, as one dict of plain values."""

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdjax.page import curves, facts, numbers, samples, summary

if TYPE_CHECKING:
  from kdjax.results import Results, Setting

TEACHER, BEFORE, AFTER = 'teacher', 'student before', 'student after'

# Scalars that aren't scores: they neither rank settings nor have intervals.
_PLAIN = ('length', 'eos_fraction')

# Points of a curve, on charts some 600 pixels wide: fewer where there may be a
# hundred curves.
_RUN_POINTS, _SWEEP_POINTS = 200, 40

# Of a failed run's output the end says why; a page has no use for the rest.
_TAIL_LINES = 12


def collect(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a run's workdir or a sweep's folder.

  Raises:
    ValueError: the folder is neither.
  """
  # Late: it imports jax.
  from kdjax import results

  sweep = (folder / 'sweep.json').exists()
  if not sweep and not (folder / 'config.json').exists():
    raise ValueError(
      f'{folder} is neither a sweep nor a run: it holds no sweep.json and no '
      "config.json. Pass the folder of a sweep's --out or a run's --workdir."
    )
  found = results.load(folder)
  page = _scores(found) | {
    'settings': [
      _setting(each, found.metrics, sweep) for each in found.settings
    ],
    'sets': _sets(found, sweep),
  }
  rows = [row['metrics'] for row in (*page['settings'], *page['references'])]
  for metric in page['metrics']:
    values = [x for row in rows for x in row.get(metric['name'], [])]
    metric['digits'] = numbers.digits(values)
  names = [name for each in page['sets'].values() for name in each['scores']]
  page['lower'] = [name for name in names if _lower(name)]
  return page | (_of_sweep if sweep else _of_run)(found, page['primary'])


def _of_run(found: 'Results', primary: str) -> dict[str, Any]:
  config = _read_json(found.path / 'config.json')
  setting = found.settings[0]
  students = {system.name: system for system in setting.systems.values()}
  scored = {**found.references[None], **students}
  systems = {
    name: numbers.interval(_estimate(system, primary))
    for name, system in scored.items()
    if primary in system.scores
  }
  gain = numbers.interval(setting.gain(primary))
  return {
    'kind': 'run',
    'title': f'{config["task"]["name"]}: {config["recipe"]["name"]}',
    'facts': facts.of_run(config),
    'axes': [],
    'config': config,
    'headline': summary.of_run(primary, _lower(primary), systems, gain),
  }


def _of_sweep(found: 'Results', primary: str) -> dict[str, Any]:
  plan = _read_json(found.path / 'sweep.json')
  told = facts.shared(
    [_read_json(run.workdir / 'config.json') for run in found.runs]
  )
  name = told.get('task') or pathlib.PurePath(plan['config']).stem
  axes = {k: ', '.join(map(facts.value, v)) for k, v in found.axes.items()}
  best = found.best() if primary else None
  ours = best.setting if best else None
  return {
    'kind': 'sweep',
    'title': ': '.join(filter(None, [name, ' × '.join(found.axes)])),
    'facts': {
      'config': plan['config'],
      **axes,
      'seeds': ', '.join(map(facts.value, plan['seeds'])),
      'runs': _count([run.state for run in found.runs]),
      **{k: v for k, v in told.items() if k not in axes},
    },
    'axes': [{'name': k, 'values': list(v)} for k, v in found.axes.items()],
    'headline': summary.of_sweep(
      best,
      _reference_score(ours and ours.before, primary),
      _reference_score(ours and ours.teacher, primary),
    ),
  }


def _reference_score(system: Any, metric: str) -> numbers.Interval | None:
  if system is None or metric not in system.scores:
    return None
  return numbers.interval(_estimate(system, metric))


def _estimate(system: Any, metric: str) -> Any:
  from kdjax.results import intervals

  return intervals.estimate([system], metric)


def _scores(found: 'Results') -> dict[str, Any]:
  """The metrics, and the references' rows."""
  scores = list(found.metrics)
  plain = [name for name in _PLAIN if scores]
  references = [
    {
      'id': f'{system.name} ({name})'
      if len(found.references) > 1
      else system.name,
      'kind': system.name,
      'reference': name or '',
      'metrics': {
        metric: numbers.interval(_estimate(system, metric))
        for metric in (*scores, *plain)
        if metric in system.scores
      },
    }
    for name, known in found.references.items()
    for system in known.values()
  ]
  estimates = [x.estimate(scores[0]) for x in found.settings] if scores else []
  return {
    'metrics': [
      {'name': name, 'lower': _lower(name), 'score': name in scores}
      for name in (*scores, *plain)
    ],
    'primary': scores[0] if scores else '',
    'references': references,
    # What the intervals are over, as the caption says it.
    'over': ', or '.join(dict.fromkeys(x.over for x in estimates if x.over)),
  }


def _lower(name: str) -> bool:
  from kdjax import evaluation

  return bool(name) and evaluation.lower_is_better(name)


def _setting(
  each: 'Setting', scores: Sequence[str], sweep: bool
) -> dict[str, Any]:
  from kdjax import metrics

  rows = {name: numbers.interval(each.estimate(name)) for name in scores}
  rows |= {n: [each.estimate(n).value, None, None] for n in _PLAIN}
  # A mean over seeds ends where the shortest run ends: of those that are done.
  drawn = [run for run in each.runs if run.state == 'done'] or each.runs
  written = [r.workdir for r in drawn if (r.workdir / 'metrics.jsonl').exists()]
  lines = [metrics.read(workdir) for workdir in written]
  label = each.label if sweep else AFTER
  return {
    'id': label,
    'values': dict(each.values),
    'reference': each.runs[0].reference or '',
    'runs': [_state(run) for run in each.runs],
    'metrics': {
      name: [numbers.rounded(value), *ends]
      for name, (value, *ends) in rows.items()
      if numbers.finite(value) is not None
    },
    # Of the first metric, over the undistilled student.
    'gain': numbers.interval(each.gain(scores[0])) if scores else None,
    'curves': curves.of_setting(
      lines, _SWEEP_POINTS if sweep else _RUN_POINTS, interval=not sweep
    ),
    'teacher': curves.teacher(lines[0]) if lines else {},
  }


def _state(run: Any) -> dict[str, Any]:
  tail = '\n'.join(run.reason.splitlines()[-_TAIL_LINES:])
  return {'seed': run.seed, 'state': run.state, 'tail': tail}


def _count(states: Sequence[str]) -> str:
  counts = {state: states.count(state) for state in dict.fromkeys(states)}
  return ', '.join(f'{n} {state}' for state, n in counts.items())


def _sets(found: 'Results', sweep: bool) -> dict[str, Any]:
  """The examples of each reference, with one seed of each setting."""
  sets = {}
  for name, known in found.references.items():
    systems = {key: known[key] for key in (TEACHER, BEFORE) if key in known}
    for each in found.settings:
      if each.runs[0].reference == name and each.systems:
        label = each.label if sweep else AFTER
        systems[label] = next(iter(each.systems.values()))
    budget = samples.BUDGET // len(found.references)
    sources = {k: (system.folder, system.key) for k, system in systems.items()}
    sets[name or ''] = samples.collect(sources, budget)
  return {name: each for name, each in sets.items() if each}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text('utf-8')) if path.exists() else {}
