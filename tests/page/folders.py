"""Small folders as runs and sweeps leave them, made of invented numbers."""

import json

import numpy as np

METRICS = ('rouge2', 'ter')
WORDS = ('the', 'quick', 'brown', 'fox', 'jumps', 'over', 'a', 'lazy', 'dog')
PIECES = [f' {word}' for word in WORDS]

# What a page must show as it stands, and never run.
NASTY = "</script><script>window.hacked = 1</script><b>& 'quotes'</b>\u2028end"


def interval(name, value, width=1.0):
  return {
    name: value,
    f'{name}_low': value - width,
    f'{name}_high': value + width,
  }


def scalars(score, width=1.0):
  """A system's results: rouge2 as given, the other metrics go with it."""
  return {
    'length': 10.5,
    'eos_fraction': 0.95,
    **interval('rouge2', score, width),
    **interval('ter', 90 - score, width),
    **interval('forward_kl_gold', 2 - score / 20, 0.02),
  }


def config(**changes):
  found = {
    'recipe': {'name': 'gkd', 'lam': 0.5, 'beta': 0.1},
    'task': {'name': 'debsum'},
    'teacher': {'path': 'kdjax:debsum-teacher'},
    'student': {'path': 'kdjax:debsum-student'},
    'optimizer': {'name': 'adafactor', 'learning_rate': 0.003},
    'sampling': {'temperature': 1.0},
    'steps': 60,
    'batch_size': 32,
    'seed': 0,
  }
  return found | changes


def response(rng, score, divergences=True, gold=0):
  """One system's response; tokens have a divergence each, as has the gold."""
  n = int(rng.integers(4, 12))
  pieces = [PIECES[i] for i in rng.integers(len(PIECES), size=n)]
  kl = lambda size: np.exp(rng.normal(-2.5, 1.8, size)).round(6).tolist()
  found = {
    'text': ''.join(pieces).strip(),
    'length': n,
    'ended': bool(rng.random() < 0.9),
    'scores': {'rouge2': score, 'ter': 100 - score},
    'tokens': pieces,
  }
  if divergences:
    found |= {'forward_kl': kl(n), 'reverse_kl': kl(n)}
    found['gold'] = {'forward_kl': kl(gold), 'reverse_kl': kl(gold)}
  return found


def write_json(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value), encoding='utf-8')


def write_lines(path, lines):
  texts = [json.dumps(line, ensure_ascii=False) + '\n' for line in lines]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(texts), 'utf-8')


def metric_lines(score, seed, evaluations=True):
  rng = np.random.default_rng(seed)
  lines = []
  for step in range(0, 61, 5):
    total = {'total/seconds': step * 1.5, 'total/sampled_tokens': 160 * step}
    done = 1 - np.exp(-step / 20)
    lines.append(
      {'step': step, 'loss': float(2 - done + rng.normal(0, 0.05)), **total}
    )
    if evaluations and step % 10 == 0:
      value = 15 + (score - 15) * done + float(rng.normal(0, 0.1))
      scores = {f'eval/{k}': v for k, v in scalars(value).items()}
      lines.append({'step': step, **scores, 'teacher/rouge2': 24.0, **total})
  return lines


def example_lines(systems, count, seed=0):
  """Examples of the systems {name: mean score}; the first one is nasty."""
  rng = np.random.default_rng(seed)
  lines = []
  for i in range(count):
    size = int(rng.integers(4, 10))
    gold = [PIECES[j] for j in rng.integers(len(PIECES), size=size)]
    said = {}
    for name, score in systems.items():
      # Steps of five, so that some examples are equal.
      own = float(np.clip(5 * round(rng.normal(score, 12) / 5), 0, 100))
      said[name] = response(rng, own, name != 'teacher', size)
    text = (
      NASTY if i == 0 else f'Example {i}: ' + ' '.join(rng.choice(WORDS, 25))
    )
    reference = ''.join(gold).strip()
    references = [reference] if i % 3 else [reference, 'another gold text']
    lines.append(
      {
        'id': 100 + i,
        'input': text,
        'references': references,
        'gold_tokens': gold,
        'responses': said,
      }
    )
  return lines


def run(folder, examples=25, score=21.0):
  """Writes the workdir of a run that is done."""
  write_json(folder / 'config.json', config())
  write_lines(folder / 'metrics.jsonl', metric_lines(score, 0))
  systems = {'teacher': 24.0, 'student before': 15.0, 'student after': score}
  results = {name: scalars(each) for name, each in systems.items()}
  write_json(folder / 'results.json', results)
  write_lines(folder / 'examples.jsonl', example_lines(systems, examples))
  return folder


# Of each setting (lam, beta): the score of its seeds; None failed, ... pending.
SCORES = {
  (0, 0.1): [18.0, 18.2, 18.1],
  (0, 0.9): [17.5, 17.1, 17.4],
  (0.5, 0.1): [21.3, 21.5, 21.4],
  (0.5, 0.9): [20.2, None, 20.6],
  (1, 0.1): [21.2, 21.35, 21.6],
  (1, 0.9): [19.0, ..., ...],
}


def sweep(folder, scores=SCORES, examples=25, references=('reference',)):
  """Writes a sweep's folder, with failed and pending runs.

  Of several references the settings take turns.
  """
  runs = []
  for i, ((lam, beta), seeds) in enumerate(scores.items()):
    reference = references[i % len(references)]
    for seed, score in enumerate(seeds):
      name = f'lam={lam},beta={beta},seed={seed}'
      values = {'lam': lam, 'beta': beta}
      run = {'name': name, 'values': values, 'seed': seed}
      runs.append(run | {'reference': reference})
      _sweep_run(folder / name, values, seed, score, examples)
  plan = {
    'config': 'configs/gkd_debsum.py',
    'axes': {
      'lam': sorted({lam for lam, _ in scores}),
      'beta': sorted({beta for _, beta in scores}),
    },
    'seeds': list(range(max(map(len, scores.values())))),
    'references': [{'name': name, 'flags': []} for name in references],
    'runs': runs,
  }
  write_json(folder / 'sweep.json', plan)
  systems = {'teacher': 24.0, 'student': 15.0}
  found = {name: scalars(each) for name, each in systems.items()}
  for name in references:
    home = folder / name
    write_json(home / 'evaluation.json', found)
    write_lines(home / 'examples.jsonl', example_lines(systems, examples))
  return folder


def add_axis(folder):
  """Gives a sweep a third axis, whose value goes with that of the first."""
  plan = json.loads((folder / 'sweep.json').read_text())
  for each in plan['runs']:
    each['values']['kind'] = 'late' if each['values']['lam'] == 1 else 'early'
  plan['axes']['kind'] = ['early', 'late']
  write_json(folder / 'sweep.json', plan)


def _sweep_run(folder, values, seed, score, examples):
  if score is ...:
    return
  recipe = {'name': 'gkd', **values}
  write_json(folder / 'config.json', config(recipe=recipe, seed=seed))
  write_lines(folder / 'metrics.jsonl', metric_lines(score or 18.0, seed))
  if score is None:
    (folder / 'failed.txt').write_text('step 31\nkdjax: loss is not finite\n')
    return
  write_json(folder / 'results.json', {'student after': scalars(score)})
  lines = example_lines({'student after': score}, examples, seed)
  write_lines(folder / 'examples.jsonl', lines)
