"""Every problem at once, and no device for it."""

import os
import subprocess
import sys

import pytest

from kdjax import checks, config


def test_every_problem_comes_in_one_error(tiny):
  c = tiny(
    stpes=3,
    batch_size='many',
    micro_batch_size=3,
    recipe__name='gdk',
    task__nmae='xsum',
    eval__metrics=('rouge9',),
    student__config={'model_type': 't6'},
    optimizer__learning_rate=-1.0,
  )
  with pytest.raises(config.ConfigError) as error:
    checks.validate(c)
  found = str(error.value)
  for value in (
    'stpes',
    "'many'",
    'micro_batch_size=3',
    "'gdk'",
    'task.name?',
    'rouge9',
    "'t6'",
    '-1.0',
  ):
    assert value in found
  assert found.startswith(f'the config has {len(error.value.problems)} problem')


def test_no_device_is_touched(tiny_data, caches):
  code = f"""
import runpy
from jax._src import xla_bridge
from kdjax import checks
c = runpy.run_path('tests/tiny.py')['get_config']({str(tiny_data)!r})
del c.recipe.lam
c.recipe.lam = dict(kind='linear', start=0.0, end=1.0, steps=10)
checks.validate(c)
c.eval.metrics = ('rouge9',)
try:
  checks.validate(c)
except ValueError as error:
  print(error)
print('devices', xla_bridge.backends_are_initialized())
"""
  printed = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, **caches},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert 'rouge9' in printed and printed.endswith('devices False\n')


def test_all_that_recipes_lack_comes_in_one_error(tiny):
  part = {**tiny().task.to_dict(), 'vocabulary': 'debsum'}
  policy = {'loss': 'policy_gradient', 'source': 'student'}
  terms = [
    {**policy, 'name': 'a', 'reward': 'blue'},
    {
      **policy,
      'name': 'b',
      'reward': 'learned',
      'loss_args': {'baseline': 'group'},
    },
    {'name': 'c', 'loss': 'cross_entropy', 'task': 'away'},
    {'name': 'd', 'loss': 'cross_entropy', 'source': 'teacher'},
  ]
  with pytest.raises(config.ConfigError) as error:
    checks.validate(
      tiny(
        recipe={'name': 'terms', 'terms': terms},
        teacher__config={},
        teacher_mix=0.2,
        tasks={'other': part},
        sampling__temperature=0.0,
        checkpoint__best_metric='exact_match',
        checkpoint__best_mode='max',
      )
    )
  found = error.value.problems
  for expected in (
    "reward='blue'",
    'give reward.path',
    "terms ['b'] of recipe 'terms' compare the samples",
    'define tasks.away',
    'task.teacher_responses',
    'give teacher.path',
    'tasks.other.vocabulary',
    'greedy responses are no samples of the policy',
    'the samples of a prompt are all the same',
  ):
    assert sum(expected in line for line in found) == 1, expected
  assert len(found) == 9
