"""Tests of the command line: what is wrong is said in one message."""

import pathlib

import pytest

import kdjax.main

MAIN = pathlib.Path(kdjax.main.__file__)


def fails(process):
  """Returns what a process that must fail printed on stderr."""
  printed, log = process.communicate(timeout=300)
  assert process.returncode == 1
  assert not printed
  return log


@pytest.mark.parametrize(
  ('flags', 'config', 'expected'),
  [
    (['--workdir=x'], '/no/such.py', '/no/such.py'),
    (['--workdir=x', '--config.steps=3'], '/no/such.py', '/no/such.py'),
    (['--workdir=x', '--config.steps=few'], None, "steps=few: invalid.*'few'"),
    (['--workdir=x', '--config.tsak.name=few'], None, '"task" instead'),
    (['--workdir=x', '--mode=tarin'], None, 'train|evaluate|generate'),
    (['--config.steps=3'], None, '--workdir must have a value'),
  ],
)
def test_wrong_command_lines(command, flags, config, expected):
  import re

  log = fails(command(*flags, **({'config': config} if config else {})))
  assert log.startswith('kdjax: ') and log.count('\n') == 1
  assert re.search(expected.replace('|', r'\|'), log)


def test_wrong_argument_of_a_config_file(command, tmp_path):
  path = tmp_path / 'config.py'
  path.write_text(
    'from kdjax import config\n'
    'def get_config(arg=None):\n'
    '  config.parse_arg(arg, embedded=False)\n'
  )
  log = fails(command('--workdir=x', config=f'{path}:embeded'))
  assert log.startswith('kdjax: ') and log.count('\n') == 1
  assert "unknown config argument 'embeded'; known are ['embedded']" in log


def test_wrong_config_lists_all_and_debug_shows_the_stack(command, tmp_path):
  flags = (
    f'--workdir={tmp_path}/run',
    '--config.stpes=3',
    '--config.recipe.beta=2.0',
    '--config.eval.metrics=rouge9',
  )
  quiet, loud = command(*flags), command(*flags, '--debug')
  log = fails(quiet)
  assert log.startswith('kdjax: the config has ')
  assert 'steps?' in log and 'beta=2.0' in log and 'rouge9' in log
  assert 'Traceback' not in log
  assert 'Traceback' in fails(loud)
  assert not (tmp_path / 'run').exists()


def test_models_out_of_reach_name_the_embedded_way(command, tmp_path):
  log = fails(
    command(
      f'--workdir={tmp_path}/run',
      '--config.teacher.config={}',
      '--config.teacher.path=no-one/no-such-model',
    )
  )
  message = log[log.index('kdjax: ') :]
  assert 'no-one/no-such-model' in message and ':embedded' in message
  assert message.count('\n') == 1 and 'Traceback' not in log
  assert not (tmp_path / 'run').exists()


def test_main_is_short():
  assert len(MAIN.read_text().splitlines()) < 80
