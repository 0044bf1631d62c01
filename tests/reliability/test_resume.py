"""Promise 1: whoever kills a run changes nothing but how long it takes."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests.reliability import disturbed
from tests.reliability.jobs import SOURCES


@pytest.fixture(scope='module')
def cached(command, tmp_path_factory):
  """A folder of the teacher's responses."""
  folder = tmp_path_factory.mktemp('responses')
  flags = '--mode=generate', f'--workdir={folder}'
  disturbed.finish(command(*flags))
  return folder


@pytest.fixture
def start(command, tiny_data, cached):
  """Returns a function of a source and a workdir to a run's process."""

  def run(source, workdir):
    config = f'{disturbed.JOBS}:{tiny_data},{source},{cached}'
    return command(f'--workdir={workdir}', config=config)

  return run


def kill(process, workdir, moment, inside, rng):
  """Kills a run once it has come to a step; returns whether it was running."""
  came = disturbed.reach(workdir, moment, process)
  if inside:
    came &= disturbed.reach_save(workdir, process)
  else:
    time.sleep(rng.uniform(0, 0.1))
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return came and process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize('source', SOURCES)
def test_killed_runs_end_bitwise_as_undisturbed_ones(
  source, start, tmp_path, tries, tried, full
):
  if not full and source not in ('student', 'stale'):
    pytest.skip('tried with --full')
  # Any moment must do, so a failure may not come back: it shows its moments.
  rng = np.random.default_rng()
  whole, workdir = tmp_path / 'whole', tmp_path / 'killed'
  disturbed.finish(start(source, whole))
  moments = np.sort(rng.integers(0, 290, tries(2, 20)))
  print('killed after the steps', moments)
  kills = saves = 0
  for i, moment in enumerate(moments):
    process = start(source, workdir)
    kills += kill(process, workdir, moment, i % 2, rng)
    saves += disturbed.saving(workdir)
  disturbed.finish(start(source, workdir))
  disturbed.assert_same(workdir, whole)
  tried(1, f'`kill -9` of a run whose responses are of: {source}', kills)
  tried(1, 'of these inside a save', saves)


@pytest.mark.slow
def test_other_data_are_refused(command, tiny_data, tmp_path, tried):
  data, workdir = tmp_path / 'data', tmp_path / 'run'
  shutil.copytree(tiny_data, data)
  flags = (
    f'--config.task.args.path={data}/{{split}}.jsonl',
    f'--workdir={workdir}',
  )
  process = command(*flags)
  disturbed.reach(workdir, 23, process)
  process.kill()
  process.communicate()
  train = data / 'train.jsonl'
  whole = train.read_bytes()
  train.write_bytes(b''.join(whole.splitlines(True)[:20]))
  _, said = (process := command(*flags)).communicate(timeout=300)
  assert process.returncode == 1 and 'Traceback' not in said
  assert 'a run on other data' in said and 'train.examples: 64 → 20' in said
  train.write_bytes(whole)
  assert 'resumed at step' in disturbed.finish(command(*flags))
  tried(1, 'data that changed between two starts', 1)
