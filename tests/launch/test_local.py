"""The launcher of several processes: what they are told, and how they end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

LAUNCHER = pathlib.Path(__file__).parents[2] / 'launch' / 'local.py'

# Stands for kdjax.main: says who it is, then does as the flag for it says.
_MAIN = """
import os, signal, sys, time
number = int(os.environ['JAX_PROCESS_ID'])
names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PLATFORMS',
         'XLA_FLAGS', 'JAX_LOCAL_DEVICE_IDS')
print('knows', *(os.environ.get(name) for name in names), sys.argv[1:])
def stop(number, frame):
  print('told', number)
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
what = dict(x[2:].split('=') for x in sys.argv[1:]).get(str(number), 'end')
print('ready')
if what == 'wait':
  time.sleep(60)
elif what == 'killed':
  os.kill(os.getpid(), signal.SIGKILL)
elif what != 'end':
  sys.exit(int(what))
"""


@pytest.fixture
def launch(tmp_path):
  """Starts the launcher around a process that does as it is told."""
  for path, text in {
    'launch/local.py': LAUNCHER.read_text().replace('GRACE = 10', 'GRACE = 1'),
    'kdjax/main.py': _MAIN,
    'kdjax/__init__.py': '',
  }.items():
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(text)

  def start(*flags):
    return subprocess.Popen(
      [sys.executable, 'launch/local.py', *flags],
      cwd=tmp_path,
      env={**os.environ, 'XLA_FLAGS': '--xla_other'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return start


def lines(text, number):
  """What a process printed."""
  marked = f'[{number}] '
  found = [line for line in text.splitlines() if line.startswith(marked)]
  return [line.removeprefix(marked) for line in found]


def test_processes_know_each_other_and_their_devices(launch):
  process = launch('--processes=2', '--devices_per_process=3', '--', '--x=y')
  text, _ = process.communicate(timeout=30)
  assert process.returncode == 0, text
  said = [lines(text, i)[0].split() for i in range(2)]
  assert said[0] == said[1]
  word, address, *rest = said[0]
  assert word == 'knows' and address.startswith('localhost:')
  device = '--xla_force_host_platform_device_count=3'
  assert rest == ['2', 'cpu', '--xla_other', device, 'None', "['--x=y']"]


def test_gpus_are_dealt_in_order(launch):
  process = launch(
    '--processes=2', '--devices_per_process=2', '--gpus', '--', '--x=y'
  )
  text, _ = process.communicate(timeout=30)
  assert process.returncode == 0, text
  for i, devices in enumerate(('0,1', '2,3')):
    said = lines(text, i)[0].split()
    assert said[-2] == devices and '--xla_other' in said
    assert not any('device_count' in word for word in said)


@pytest.mark.parametrize(
  ('what', 'code', 'cause'),
  [('killed', 137, 'SIGKILL'), ('3', 3, 'exit code 3')],
)
def test_one_that_dies_ends_the_others(launch, what, code, cause):
  began = time.monotonic()
  process = launch('--processes=3', '--', '--0=wait', f'--1={what}', '--2=wait')
  text, _ = process.communicate(timeout=30)
  assert time.monotonic() - began < 20
  assert process.returncode == code, text
  assert f'process 1 of 3 died first, by {cause}' in text
  assert 'The same command goes on' in text


def test_a_full_disk_of_one_is_what_all_end_with(launch):
  process = launch('--processes=2', '--', '--0=1', '--1=74')
  text, _ = process.communicate(timeout=30)
  assert process.returncode == 74, text


def test_a_failure_of_all_is_not_explained(launch):
  process = launch('--processes=2', '--', '--0=3', '--1=3')
  text, _ = process.communicate(timeout=30)
  assert process.returncode == 3
  assert 'local.py' not in text


def test_signals_are_passed_on(launch):
  process = launch('--processes=2', '--', '--0=wait', '--1=wait')
  text = ''
  while text.count('ready') < 2:
    text += process.stdout.readline()
  process.send_signal(signal.SIGTERM)
  rest, _ = process.communicate(timeout=30)
  assert process.returncode == 128 + signal.SIGTERM, rest
  assert lines(rest, 0) == lines(rest, 1) == ['told 15']
  assert 'local.py' not in rest


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--processes=0', '--', '--x=y'], 'must be at least 1'),
    (['--processes=2'], 'flags of kdjax.main after --'),
  ],
)
def test_bad_flags_are_refused(launch, flags, message):
  process = launch(*flags)
  text, _ = process.communicate(timeout=30)
  assert process.returncode == 2 and message in text
