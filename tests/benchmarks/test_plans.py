"""The table of plans: rows that can be planned, and what stands in them."""

import pathlib

from benchmarks import plans
from kdjax import checks
from kdjax.plan import chips
from kdjax.sweep import names

ROOT = pathlib.Path(__file__).parents[2]


def test_rows_name_configs_and_slices_that_exist():
  for _, path, topology, settings in plans.ROWS:
    config = names.load([f'--config={ROOT / path}', *settings])
    checks.validate(config, 'plan')
    chips.find(topology)


def test_a_row_says_how_much_is_too_much():
  programs = [
    {'name': 'rollout', 'peak': 3 * chips.GIB, 'limit': 'memory'},
    {'name': 'update', 'peak': 18 * chips.GIB, 'limit': 'compute'},
  ]
  plan = {
    'topology': 'v5e:2x2',
    'chip': {'hbm': 16 * chips.GIB},
    'programs': programs,
    'fits': False,
    'spare': -2.0 * chips.GIB,
    'changes': [{'setting': 'mesh.fsdp=4'}],
    'seconds': 0.5,
    'tokens': 2048,
  }
  row = plans.line('models', ('--config.batch_size=64',), plan)
  assert row == [
    'models',
    'v5e:2x2',
    '`batch_size=64`',
    '3.00',
    '18.00',
    '16.00',
    '2.0 GiB too much: mesh.fsdp=4',
    '500.0',
    'compute',
    '4,096',
  ]
