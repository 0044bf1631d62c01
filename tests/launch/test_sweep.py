"""The sweep command: printed, written, run, killed, and gone on with."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / 'tests' / 'tiny.py'
CONFIG = '--config=configs/gkd_xsum.py:embedded'


def start(*flags):
  return subprocess.Popen(
    [sys.executable, 'launch/sweep.py', *flags],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(*flags):
  process = start(*flags)
  out, error = process.communicate(timeout=600)
  return process.returncode, out, error


def test_commands_are_plain_and_nothing_starts(tmp_path):
  out = f'--out={tmp_path}/sweep'
  axes = '--axis=student_fraction=0,0.25,0.5,1', '--axis=beta=0.1,0.5,0.9'
  code, printed, _ = run(CONFIG, *axes, '--seeds=3', out, '--print')
  lines = printed.splitlines()
  assert code == 0 and len(lines) == 1 + 4 * 3 * 3
  assert all(line.startswith('python -m kdjax.main --') for line in lines)
  assert not (tmp_path / 'sweep').exists()


def test_all_that_is_wrong_is_said_and_nothing_starts(tmp_path):
  out = f'--out={tmp_path}/sweep'
  axes = '--axis=beta=0.5,2', '--axis=learning_rate=1'
  code, _, error = run(CONFIG, *axes, out)
  assert code == 1 and 'auxiliary_optimizer.learning_rate' in error
  assert 'Traceback' not in error and not (tmp_path / 'sweep').exists()
  code, _, error = run(CONFIG, '--axis=beta', out)
  assert code == 1 and '--axis=beta: expected a name and its values' in error


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_a_failed_run_stops_no_other(
  tmp_path, tiny_data
):
  out = tmp_path / 'sweep'
  command = (
    f'--config={TINY}:{tiny_data}',
    '--axis=student_fraction=0.5,1',
    '--axis=optimizer.learning_rate=1e-3,1e30',  # which no run survives
    '--seeds=2',
    '--analyses=exposure_bias',
    f'--out={out}',
    '--',
    '--config.steps=10',
    '--config.eval.every=5',
    '--config.max_skipped=1',
  )
  first = out / 'student_fraction=0.5,optimizer.learning_rate=0.001,seed=0'
  process = start(*command)
  _until((first / 'results.json').exists)
  time.sleep(1)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGTERM
  assert not (out / 'results.csv').exists()
  written = (first / 'results.json').stat().st_mtime

  code, printed, error = run(*command)
  assert code == 1, error
  assert '4 of 17 failed' in printed and 'Traceback' not in error
  assert (first / 'results.json').stat().st_mtime == written
  states = {
    run['name']: (out / run['name'] / 'results.json').exists()
    for run in json.loads((out / 'sweep.json').read_text())['runs']
  }
  assert len(states) == 8
  for name, done in states.items():
    assert done == ('0.001' in name)
    assert (out / name / 'analyses.json').exists() == done
    if not done:
      reason = (out / name / 'failed.txt').read_text()
      assert 'were not finite' in reason
  with (out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  fractions = [row['student_fraction'] for row in rows]
  assert {'0.5', '1'} <= {f.removesuffix('.0') for f in fractions if f}
  assert (out / 'figures' / 'exposure_bias.png').exists()
  assert (out / 'report.html').stat().st_size > 10_000
  code, _, _ = run(*command[:-4], '--report', *command[-4:])
  assert code == 0

  code, printed, _ = run(*command[:-4], '--slurm', *command[-4:])
  lines = (out / 'runs.txt').read_text().splitlines()
  assert code == 0 and len(lines) == 4  # what is done is left out
  assert printed.startswith('sbatch --array=1-4%1 launch/slurm_array.sh')


def _until(happened, seconds=300):
  deadline = time.monotonic() + seconds
  while not happened():
    assert time.monotonic() < deadline
    time.sleep(0.05)
