"""Trains every recipe on a shipped pair, and tabulates the outcome.

  python -m benchmarks.recipes --out=runs/recipes

runs the `:embedded` form of each config, 300 steps, and writes `recipes.md` and
`recipes.json`: the mean of what the recipe optimises over the first and the
last fifth of its steps, the updates that were skipped as not finite, and the
student's score on the test split before and after. What has been run is not
run again. Name configs to run only these.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]

# What each recipe optimises, by the beginning of its metric's name; '+' where
# more of it is better. R-Regression's policy comes after its reward model.
OBJECTIVES = {
  'word_kd_dolly': '-loss/kd',
  'akl_dolly': '-loss/akl',
  'pre_distillation_dart': '-loss/hidden_decoder',
  'layer_matching_dart': '-loss/hidden_decoder',
  'imitkd_wmt14_ende': '-loss/imitkd',
  'on_policy_kd_xsum': '-loss/gkd',
  'distillm_dolly': '-loss/distillm',
  'engine_dart': '-loss/engine',
  'f_distill_dart': '-loss/student',
  'minillm_dolly': '+reward/reverse_kl',
  'llmr_dailydialog': '+reward/induced',
  'self_distillation_dailydialog': '+reward/induced_soft',
  'self_training_dailydialog': '-loss/pseudo',
  'reward_regression_dailydialog': '-loss/reward',
  'r_regression_dailydialog': '+reward/learned',
  'preference_reward_hh': '-loss/reward',
  'reinforce_xsum': '+reward/',
  'gkd_rl_xsum': '+reward/',
  'grpo_gsm8k': '+reward/',
  'dpkd_dolly': '-loss/dpkd',
  'dpkd_token_dolly': '-loss/dpkd',
  'dpo_hh': '-loss/dpo',
  'ranking_dolly': '+reward/teacher_logprob',
}


def run(name: str, folder: pathlib.Path, flags: list[str]) -> dict:
  """Runs one config to its end, unless that was done; returns its figures."""
  workdir, begin = folder / name, time.monotonic()
  if not (workdir / 'results.json').exists():
    config = ROOT / 'configs' / f'{name}.py'
    command = [
      sys.executable,
      '-m',
      'kdjax.main',
      f'--config={config}:embedded',
    ]
    command += [f'--workdir={workdir}', *flags]
    if name == 'r_regression_dailydialog':
      judge = folder / 'reward_regression_dailydialog' / 'student'
      command.append(f'--config.reward.path={judge}')
    log = (folder / f'{name}.log').open('w')
    code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log).returncode
    if code:
      return {'failed': (folder / f'{name}.log').read_text()[-400:]}
    seconds = {'seconds': round(time.monotonic() - begin)}
    (workdir / 'seconds.json').write_text(json.dumps(seconds))
  return figures(name, workdir)


def figures(name: str, workdir: pathlib.Path) -> dict:
  """Returns what a finished run's files say."""
  text = (workdir / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  better, prefix = OBJECTIVES[name][0], OBJECTIVES[name][1:]
  metric = min(k for line in lines for k in line if k.startswith(prefix))
  values = [line[metric] for line in lines if line.get(metric) is not None]
  fifth = max(1, len(values) // 5)
  mean = lambda part: sum(part) / len(part)
  results = json.loads((workdir / 'results.json').read_text())
  scores = results['student after']
  score = 'exact_match' if 'exact_match' in scores else 'rouge2'
  return {
    'metric': metric,
    'better': better,
    'first': mean(values[:fifth]),
    'last': mean(values[-fifth:]),
    'skipped': max(line.get('skipped', 0) for line in lines),
    'before': results['student before'][score],
    'after': scores[score],
    'score': score,
    **json.loads((workdir / 'seconds.json').read_text()),
  }


def table(found: dict[str, dict]) -> str:
  """Returns the figures as Markdown."""
  rows = [
    '| config | what it optimises | first | last | skipped | test score '
    'before → after | seconds |',
    '| --- | --- | --- | --- | --- | --- | --- |',
  ]
  for name, each in found.items():
    if 'failed' in each:
      rows.append(f'| `{name}` | failed | | | | | |')
      continue
    arrow = '↑' if each['better'] == '+' else '↓'
    rows.append(
      f'| `{name}.py` | `{each["metric"]}` {arrow} | {each["first"]:.4g} | '
      f'{each["last"]:.4g} | {each["skipped"]:.0f} | '
      f'{each["score"]} {each["before"]:.2f} → {each["after"]:.2f} | '
      f'{each["seconds"]} |'
    )
  return '\n'.join(rows) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('configs', nargs='*', help='names; default: all')
  parser.add_argument('--out', default='runs/recipes')
  parser.add_argument('--flag', action='append', default=[])
  args = parser.parse_args()
  folder = pathlib.Path(args.out).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  os.environ.setdefault('KDJAX_CACHE', str(folder / 'cache'))
  found = {}
  for name in args.configs or OBJECTIVES:
    found[name] = run(name, folder, args.flag)
    print(name, found[name], flush=True)
    (folder / 'recipes.json').write_text(json.dumps(found, indent=2) + '\n')
    (folder / 'recipes.md').write_text(table(found))
  print(table(found))


if __name__ == '__main__':
  main()
