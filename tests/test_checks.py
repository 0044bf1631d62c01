"""Tests of what is refused before any device is touched."""

import os
import subprocess
import sys

import pytest

from kdjax import checks, config


def problems(c, mode='train'):
  with pytest.raises(config.ConfigError) as error:
    checks.validate(c, mode)
  return '\n'.join(error.value.problems)


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


def test_recipes_say_what_they_lack(tiny):
  assert 'teacher.path' in problems(tiny(teacher__config={}))
  found = problems(tiny(recipe={'name': 'seqkd'}))
  assert 'teacher_responses' in found and '--mode=generate' in found
  # To write them, or to score models, a config needs none.
  checks.validate(tiny(recipe={'name': 'seqkd'}), 'generate')
  checks.validate(tiny(teacher__config={}), 'evaluate')
  found = problems(tiny(teacher__config={}), 'generate')
  assert "generate.model='teacher'" in found


def test_tasks_and_splits_are_checked(tiny):
  assert 'xmus' in problems(tiny(task__name='xmus'))
  assert 'shots' in problems(tiny(task__name='g2p', task__args={'shots': 1}))
  gsm8k = {
    'task__name': 'gsm8k',
    'task__args': {},
    'checkpoint__best_metric': '',
    'checkpoint__best_mode': 'max',
  }
  assert "no split 'validation'" in problems(tiny(**gsm8k))
  checks.validate(tiny(**gsm8k), 'generate')
  # A split that isn't read may be missing.
  checks.validate(tiny(**gsm8k, eval__every=0, checkpoint__export='last'))


def test_checkpoints_are_ranked_by_what_is_measured(tiny):
  assert "'rouge2' is not measured" in problems(
    tiny(checkpoint__best_metric='rouge2')
  )
  assert "best_mode='max'" in problems(tiny(checkpoint__best_mode='max'))
  assert 'not measured' in problems(
    tiny(recipe={'name': 'sft'}, teacher__config={})
  )
