"""A sweep's folder as runs leave it, of made-up numbers."""

import itertools
import json
import pathlib

import numpy as np
import pytest

PHONES = ['AA', 'B', 'K', 'D', 'EH', 'F']


def write_json(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def write_lines(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def responses(skill, seed, count):
  """Answers of which about `skill` percent are right, and their gold."""
  gold = np.random.default_rng(7).choice(PHONES, size=(count, 5))
  luck = np.random.default_rng(8).random(count)
  noise = np.random.default_rng(seed).normal(scale=0.05, size=count)
  said = gold.copy()
  said[luck + noise > skill / 100, 0] = 'ZH'
  said[luck + noise > 0.5 + skill / 200, 1:3] = 'OY'
  join = lambda rows: [' '.join(row) for row in rows]
  return join(said), [[text] for text in join(gold)]


def scored(skill, seed=0, count=120, kl=0.1):
  """A `Result` as an evaluation leaves it, with one divergence."""
  from kdjax import evaluation

  said, gold = responses(skill, seed, count)
  rng = np.random.default_rng((seed, 1))
  along = [rng.gamma(2.0, kl / 2, size=rng.integers(2, 8)) for _ in said]
  pairs = np.array([(each.sum(), len(each)) for each in along])
  divergence = evaluation.Scores(pairs, lambda s: s[..., 0] / s[..., 1])
  return evaluation.score_texts(
    said,
    gold,
    ['exact_match', 'phoneme_error_rate'],
    extra={'forward_kl_student': divergence},
    ended=np.ones(count, bool),
    tokens={'student': [np.zeros(len(each), int) for each in along]},
  )


def write_system(folder, file, systems):
  """Writes what scored systems leave: the numbers and the examples."""
  from kdjax import evaluation

  write_json(folder / file, {k: v.scalars() for k, v in systems.items()})
  pieces = lambda ids: ['x' for _ in ids]
  evaluation.write_examples(
    folder / 'examples.jsonl', systems, pieces, browse=3
  )


def skill_of(values):
  """What the made-up student has learned: best at 0.5 and 0.9."""
  fraction = values.get('student_fraction', 0.5)
  bonus = {'seqkd': -6, 'gkd': 0}.get(values.get('method', 'gkd'), -3)
  return (
    50
    + 20 * fraction * (1 - fraction) * 4
    + 6 * values.get('beta', 0.5)
    + bonus
  )


def curve_of(values, seed):
  """The lines of a metrics.jsonl."""
  rng = np.random.default_rng(seed)
  sampled = 900.0 * values.get('student_fraction', 0.5)
  speed = 1.0 + values.get('student_fraction', 0.5)
  for step in range(0, 301, 50):
    share = 1 - np.exp(-step / 80)
    value = 42 + share * (skill_of(values) - 42) + rng.normal(scale=0.7)
    yield {
      'step': step,
      'total/seconds': 0.05 * step * speed,
      'total/sampled_tokens': sampled * step,
      'total/learned_tokens': 900.0 * step,
      'eval/exact_match': value,
      'eval/exact_match_low': value - 4,
      'eval/exact_match_high': value + 4,
    }
    yield {'step': step, 'loss': None if step == 0 else 1 - share}


def analyses_of(skill):
  """An analyses.json."""
  length = np.arange(1, 13)
  error = (60 - skill) * np.log(length)
  return {
    'exposure_bias': {
      'student': {
        'length': length.tolist(),
        'ex_error': error.tolist(),
        'excess_error_low': (error - 2).tolist(),
        'excess_error_high': (error + 2).tolist(),
      }
    },
    'temperatures': {
      'student': [
        {
          'temperature': t,
          'exact_match': skill - 20 * t * t,
          'exact_match_low': skill - 20 * t * t - 3,
          'exact_match_high': skill - 20 * t * t + 3,
          'self_bleu': 100 - 60 * t,
        }
        for t in (0.1, 0.5, 1.0)
      ]
    },
  }


@pytest.fixture(scope='session')
def write_sweep():
  """Writes a folder; returns it."""

  def write(folder, axes, seeds=(0, 1, 2), *, count=120, states=None, extra=()):
    folder, states = pathlib.Path(folder), states or {}
    runs = []
    for *chosen, seed in itertools.product(*axes.values(), seeds):
      values = dict(zip(axes, chosen))
      parts = [f'{k}={v}' for k, v in values.items()]
      name = ','.join([*parts, f'seed={seed}'])
      workdir, state = folder / name, states.get(name, 'done')
      entry = {'name': name, 'values': values, 'seed': seed}
      runs.append(entry | {'reference': 'reference', 'flags': []})
      write_json(
        workdir / 'config.json',
        {
          'seed': seed,
          'task': {'name': 'g2p'},
          'eval': {'test_split': 'test', 'split': 'validation'},
        },
      )
      write_lines(workdir / 'metrics.jsonl', curve_of(values, seed))
      if state == 'failed':
        (workdir / 'failed.txt').write_text('Traceback\nValueError: NaN loss\n')
      if state != 'done':
        continue
      skill = skill_of(values)
      result = scored(skill, seed + 10, count, kl=(80 - skill) / 100)
      write_system(workdir, 'results.json', {'student after': result})
      if 'analyses' in extra:
        write_json(workdir / 'analyses.json', analyses_of(skill))
    known = {'teacher': scored(80, 1, count), 'student': scored(42, 2, count)}
    write_system(folder / 'reference', 'evaluation.json', known)
    write_json(
      folder / 'sweep.json',
      {
        'config': 'configs/gkd_g2p.py',
        'axes': axes,
        'seeds': list(seeds),
        'references': [{'name': 'reference', 'flags': []}],
        'runs': runs,
      },
    )
    return folder

  return write


GRID = {'student_fraction': [0, 0.25, 0.5, 1], 'beta': [0.1, 0.5, 0.9]}


@pytest.fixture(scope='session')
def grid(tmp_path_factory, write_sweep):
  """A λ × β sweep of 3 seeds, one run failed and one pending."""
  states = {
    'student_fraction=0,beta=0.1,seed=1': 'failed',
    'student_fraction=1,beta=0.9,seed=2': 'pending',
  }
  folder = tmp_path_factory.mktemp('sweeps') / 'grid'
  return write_sweep(folder, GRID, states=states, extra=['analyses'])


@pytest.fixture(scope='session')
def ragged(tmp_path_factory, write_sweep):
  """Two methods, and a third with two axes of its own; one seed."""
  folder = tmp_path_factory.mktemp('sweeps') / 'ragged'
  one, other = folder / 'one', folder / 'other'
  write_sweep(one, {'method': ['sft', 'seqkd']}, (0,), count=40)
  axes = {'method': ['gkd'], 'student_fraction': [0, 0.5], 'beta': [0.1, 0.9]}
  write_sweep(other, axes, (0,), count=40)
  found = [json.loads((x / 'sweep.json').read_text()) for x in (one, other)]
  for run in (one, other):
    for path in run.iterdir():
      if path.is_dir() and not (folder / path.name).exists():
        path.rename(folder / path.name)
  axes['method'] = ['sft', 'seqkd', 'gkd']
  runs = found[0]['runs'] + found[1]['runs']
  write_json(folder / 'sweep.json', found[0] | {'axes': axes, 'runs': runs})
  return folder
