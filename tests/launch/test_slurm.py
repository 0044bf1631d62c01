"""SLURM's scripts run what they say, and come back only where that helps."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SRUN = ['srun', '--wait=120', '--kill-on-bad-exit=0', 'python', '-m']


class Cluster:
  """Programs named as SLURM's, which write down how they were called."""

  def __init__(self, folder):
    self.bin, self.log = folder / 'bin', folder / 'log'
    self.workdir = folder / 'run'
    self.bin.mkdir()
    self.log.touch()
    self.program('scontrol', 'echo scontrol "$@" >> "$LOG"')

  def program(self, name, body):
    path = self.bin / name
    path.write_text(f'#!/usr/bin/env bash\n{body}\n')
    path.chmod(0o755)

  def saves(self, step):
    return f'mkdir -p {self.workdir}/checkpoints/{step}'

  def start(self, script, *arguments, **variables):
    env = {
      **os.environ,
      'PATH': f'{self.bin}:{os.environ["PATH"]}',
      'LOG': str(self.log),
      'SLURM_JOB_ID': '17',
      **variables,
    }
    return subprocess.Popen(
      ['bash', f'launch/{script}', *map(str, arguments)],
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, script, *arguments, timeout=60, **variables):
    process = self.start(script, *arguments, **variables)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err

  def calls(self):
    return self.log.read_text().splitlines()


@pytest.fixture
def cluster(tmp_path):
  return Cluster(tmp_path)


def test_dry_run_prints_the_command(cluster):
  code, out, _ = cluster.run(
    'slurm.sh', '--config=a b', '--workdir=/w', DRY_RUN='1'
  )
  assert code == 0
  assert shlex.split(out) == [
    *SRUN,
    'kdjax.main',
    '--config=a b',
    '--workdir=/w',
  ]


def test_workdir_is_asked_for(cluster):
  code, _, err = cluster.run('slurm.sh', '--config=a')
  assert code != 0 and '--workdir=DIR' in err


@pytest.mark.parametrize(
  'code, step, requeued',
  [
    (0, 40, False),
    (143, 8, True),
    (143, 3, False),  # no further than the step that it began with
    (1, 8, False),
    (137, 8, False),
  ],
)
def test_job_comes_back_only_if_it_was_stopped_and_got_further(
  cluster, code, step, requeued
):
  (cluster.workdir / 'checkpoints' / '3').mkdir(parents=True)
  # What a save that was cut short leaves behind is no step.
  (cluster.workdir / 'checkpoints' / '9.partial').mkdir()
  cluster.program('srun', f'{cluster.saves(step)}; exit {code}')
  found, _, _ = cluster.run('slurm.sh', f'--workdir={cluster.workdir}')
  assert cluster.calls() == ['scontrol requeue 17'] * requeued
  assert found == (0 if requeued else code)


def test_job_that_slurm_ends_is_left_to_slurm(cluster):
  cluster.program(
    'srun', f'{cluster.saves(8)}; echo up; sleep 1; echo saved; exit 143'
  )
  process = cluster.start('slurm.sh', f'--workdir={cluster.workdir}')
  assert process.stdout.readline() == 'up\n'
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=60)
  assert out == 'saved\n'  # the shell waits for the processes
  assert process.returncode == 143
  assert cluster.calls() == []


def test_task_of_an_array_runs_its_line(cluster, tmp_path):
  runs = tmp_path / 'runs.txt'
  line = f"--config=b --config.a='x  $(date) *' --workdir={cluster.workdir}"
  runs.write_text(f'--config=a --workdir=/a\n{line}\n')
  array = dict(SLURM_ARRAY_JOB_ID='16', SLURM_ARRAY_TASK_ID='2')
  _, out, _ = cluster.run('slurm_array.sh', runs, DRY_RUN='1', **array)
  flags = ['--config=b', '--config.a=x  $(date) *']
  assert shlex.split(out) == (
    [*SRUN, 'kdjax.main', *flags, f'--workdir={cluster.workdir}']
  )
  cluster.program('srun', f'{cluster.saves(8)}; exit 143')
  cluster.run('slurm_array.sh', runs, **array)
  assert cluster.calls() == ['scontrol requeue 16_2']


def test_task_without_a_line_is_told(cluster, tmp_path):
  runs = tmp_path / 'runs.txt'
  runs.write_text('--config=a --workdir=/a\n')
  code, _, err = cluster.run('slurm_array.sh', runs, SLURM_ARRAY_TASK_ID='2')
  assert code == 1 and 'no line 2' in err


@pytest.mark.slow
def test_stopped_job_of_two_processes_comes_back_and_ends(
  cluster, caches, tiny_data
):
  (cluster.bin / 'srun').symlink_to(ROOT / 'tests' / 'launch' / 'srun')
  flags = [
    f'--config=tests/tiny.py:{tiny_data}',
    '--config.mesh.data=4',
    f'--workdir={cluster.workdir}',
  ]
  variables = dict(
    caches,
    PYTHON=sys.executable,
    SRUN_TASKS='2',
    SLURM_JOB_ID=str(os.getpid()),  # from which JAX derives its port
    JAX_PLATFORMS='cpu',
    XLA_FLAGS='--xla_force_host_platform_device_count=2',
  )
  process = cluster.start('slurm.sh', *flags, **variables)
  written = cluster.workdir / 'metrics.jsonl'
  deadline = time.monotonic() + 300
  while not written.exists() or '"step": 5' not in written.read_text():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.05)
  # As --signal=TERM does: to the processes of the step, not to the shell.
  (srun,) = children(process.pid)
  for task in children(srun):
    os.kill(task, signal.SIGTERM)
  _, log = process.communicate(timeout=300)
  assert cluster.calls() == [f'scontrol requeue {os.getpid()}'], log
  steps = [
    int(p.name) for p in (cluster.workdir / 'checkpoints').glob('[0-9]*')
  ]
  assert 5 <= max(steps) < 40
  assert not (cluster.workdir / 'student').exists()

  code, out, log = cluster.run('slurm.sh', *flags, timeout=300, **variables)
  assert code == 0, log
  assert f'resumed at step {max(steps)}' in log
  assert 'student after' in out
  assert (cluster.workdir / 'student').is_dir()
  assert len(cluster.calls()) == 1

  # What is over is over, also for a job that was requeued too often.
  table = (cluster.workdir / 'results.md').read_text()
  code, _, log = cluster.run('slurm.sh', *flags, timeout=300, **variables)
  assert code == 0, log
  assert (cluster.workdir / 'results.md').read_text() == table


def children(pid):
  found = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text()
  return [int(each) for each in found.split()]
