"""Jobs run at once: failures, signals, what each has to itself."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from kdjax.sweep import jobs, pool

# Stands for kdjax.main: does as its first flag says, and leaves results.
_MAIN = """
import os, pathlib, signal, sys, time
*flags, workdir = sys.argv[1:]
out = pathlib.Path(workdir.removeprefix('--workdir='))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print('cores', sorted(os.sched_getaffinity(0)))
print('gpu', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)
(out / 'began.partial').write_text(str(os.getpid()))
(out / 'began.partial').rename(out / 'began')
if '--fail' in flags:
  sys.exit('kdjax: the config has 1 problem')
if '--wait' in flags:
  time.sleep(60)
(out / 'results.json').write_text('{}')
"""
PROGRAM = sys.executable, '-c', _MAIN


def job(name, *flags):
  return jobs.Job(name, flags)


def run(out, *todo, **options):
  return pool.execute(out, todo, program=PROGRAM, **options)


def test_a_failed_job_is_told_and_stops_no_other(tmp_path):
  ends = []
  failed = run(
    tmp_path,
    job('a'),
    job('b', '--fail'),
    job('c'),
    told=lambda job, code, seconds: ends.append((job.name, code)),
  )
  assert failed == {'b': 1}
  assert ends == [('a', 0), ('b', 1), ('c', 0)]
  reason = (tmp_path / 'b' / 'failed.txt').read_text()
  assert reason.startswith('exit code 1\n') and '1 problem' in reason
  assert job('a').done(tmp_path) and not job('b').done(tmp_path)
  assert not run(tmp_path, job('b'))
  assert not (tmp_path / 'b' / 'failed.txt').exists()


def test_jobs_at_once_share_out_cores_or_have_a_gpu_each(tmp_path):
  mine = os.sched_getaffinity(0)
  cores = [slot['cores'] for slot in pool._slots(2, False)]
  assert set().union(*cores) == mine
  assert len(mine) < 2 or not cores[0] & cores[1]
  assert not run(tmp_path, job('a'), job('b'), at_once=2, gpus=True)
  logs = [(tmp_path / name / 'log.txt').read_text() for name in 'ab']
  assert {line for log in logs for line in log.splitlines()[1:]} <= {
    'gpu 0',
    'gpu 1',
  }


def test_a_signal_stops_those_at_work_and_starts_no_further(tmp_path):
  code = f"""
import pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r})
from kdjax.sweep import jobs, pool
todo = [jobs.Job('a', ('--wait',)), jobs.Job('b', ())]
pool.execute(pathlib.Path({str(tmp_path)!r}), todo, program={PROGRAM!r})
"""
  process = subprocess.Popen([sys.executable, '-c', code])
  _until((tmp_path / 'a' / 'began').exists)
  with pytest.raises(ValueError, match='is in use'):
    run(tmp_path, job('c'))
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 128 + signal.SIGTERM
  assert not (tmp_path / 'b').exists()
  assert not (tmp_path / 'a' / 'failed.txt').exists()
  assert not run(tmp_path, job('b'))


def test_a_job_that_outlives_its_sweep_keeps_the_folder(tmp_path):
  code = f"""
import pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r})
from kdjax.sweep import jobs, pool
pool.execute(
  pathlib.Path({str(tmp_path)!r}), [jobs.Job('a', ('--wait',))],
  program={PROGRAM!r})
"""
  process = subprocess.Popen([sys.executable, '-c', code])
  _until((tmp_path / 'a' / 'began').exists)
  process.kill()
  process.wait()
  with pytest.raises(ValueError, match='left behind'):
    run(tmp_path, job('b'))
  os.kill(int((tmp_path / 'a' / 'began').read_text()), signal.SIGKILL)
  _until(lambda: _free(tmp_path))


def _free(out):
  try:
    return not run(out, job('b'))
  except ValueError:
    return False


def _until(happened, seconds=30):
  deadline = time.monotonic() + seconds
  while not happened():
    assert time.monotonic() < deadline
    time.sleep(0.05)
