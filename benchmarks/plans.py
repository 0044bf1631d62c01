"""Plans of the README's table: what teachers and students need of which TPUs.

  python -m benchmarks.plans --out=plans

compiles each row for its topology by the command that stands beside it (minutes
each; a TPU isn't needed), and prints one table.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from kdjax.plan import chips

# Name, config, and for each topology what is set beside it.
XL = 'configs/gkd_xsum.py'
QWEN = 'configs/gkd_qwen.py'
WIDE = ('--config.batch_size=256', '--config.mesh.fsdp=16')
WHOLE = ('--config.teacher.weights=float32',)
ROWS = [
  ('T5 XL → small', XL, 'v5e:2x2', ()),
  ('T5 XL → small', XL, 'v5e:2x2', WHOLE),
  ('T5 XL → small', XL, 'v5e:2x2', ('--config.mesh.fsdp=4',)),
  ('T5 XL → small', XL, 'v5e:4x4', ('--config.mesh.fsdp=16',)),
  ('T5 XL → small, B = 256', XL, 'v5e:4x4', WIDE),
  ('T5 XL → small', XL, 'v6e:2x2', ('--config.mesh.fsdp=4',)),
  ('Qwen2.5 7B → 0.5B', QWEN, 'v5e:4x4', ('--config.mesh.fsdp=16',)),
  ('Qwen2.5 7B → 0.5B', QWEN, 'v6e:2x4', ('--config.mesh.fsdp=8',)),
  ('Qwen2.5 7B → 0.5B', QWEN, 'v5p:2x2x1', ('--config.mesh.fsdp=4',)),
  (
    'T5 XL → small, B = 128',
    XL,
    'v5e:2x2',
    ('--config.batch_size=128', *WHOLE),
  ),
]
HEADER = (
  'models',
  'slice',
  'settings',
  'rollout GiB',
  'update GiB',
  'a chip has',
  'verdict',
  'step ms (estimate)',
  'limit of the update',
  'tokens/s (estimate)',
)


def command(config: str, topology: str, settings: tuple[str, ...]) -> list[str]:
  """Returns what a row was made by."""
  return [
    'python -m kdjax.main --mode=plan',
    f'--config={config}',
    f'--topology={topology}',
    *settings,
  ]


def run(words: list[str], folder: pathlib.Path) -> dict:
  """Returns plan.json of a command, made unless it is there."""
  if not (folder / 'plan.json').exists():
    flags = ' '.join(words).split()[1:]
    subprocess.run(
      [sys.executable, *flags, f'--workdir={folder}'],
      check=True,
      stdout=subprocess.DEVNULL,
    )
  return json.loads((folder / 'plan.json').read_text())


def line(name: str, settings: tuple[str, ...], plan: dict) -> list[str]:
  """Returns a row of the table."""
  programs = {each['name']: each for each in plan['programs']}
  verdict = 'fits'
  if not plan['fits']:
    changes = ', '.join(each['setting'] for each in plan['changes'])
    over = -plan['spare'] / chips.GIB
    verdict = f'{over:.1f} GiB too much: {changes}'
  short = [each.removeprefix('--config.') for each in settings]
  took = plan['seconds']
  return [
    name,
    plan['topology'],
    ', '.join(f'`{each}`' for each in short) or '—',
    *(f'{programs[k]["peak"] / chips.GIB:.2f}' for k in ('rollout', 'update')),
    f'{plan["chip"]["hbm"] / chips.GIB:.2f}',
    verdict,
    f'{1e3 * took:.1f}' if took else '—',
    programs['update'].get('limit', '—'),
    f'{plan["tokens"] / took:,.0f}' if took else '—',
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', default='plans', help='a folder for all plans')
  args = parser.parse_args()
  rows, commands, seconds = [], [], []
  for i, (name, config, topology, settings) in enumerate(ROWS):
    words = command(config, topology, settings)
    plan = run(words, pathlib.Path(args.out) / str(i))
    rows.append(line(name, settings, plan))
    commands.append(' '.join(words))
    seconds.append(sum(each['seconds'] for each in plan['programs']))
  for row in (HEADER, ['---'] * len(HEADER), *rows):
    print('| ' + ' | '.join(row) + ' |')
  print('\nMade by, with the seconds that compiling took:\n')
  for words, took in zip(commands, seconds):
    print(f'- `{words}` ({took:.0f} s)')


if __name__ == '__main__':
  main()
