"""Promise 2: a run that is asked to stop saves first, and goes on later."""

import pathlib
import re
import signal
import time

import numpy as np
import pytest

from tests.reliability import disturbed

# A step and a save of the tiny run take milliseconds; the rest is Python's end
# and a machine that is busy with other tests.
GRACE_SECONDS = 60


def stop(process, number):
  """Asks a process to stop; returns its exit code, and what it said of that."""
  process.send_signal(number)
  _, said = process.communicate(timeout=GRACE_SECONDS)
  return process.returncode, said


@pytest.mark.slow
def test_signals_save_and_exit_with_their_codes(
  command, tiny_data, tmp_path, tries, tried
):
  rng = np.random.default_rng()
  config = f'{disturbed.JOBS}:{tiny_data},student'
  whole, workdir = tmp_path / 'whole', tmp_path / 'stopped'
  disturbed.finish(command(f'--workdir={whole}', config=config))
  moments = np.sort(rng.integers(0, 280, tries(2, 10)))
  print('stopped after the steps', moments)
  for i, moment in enumerate(moments):
    number = (signal.SIGTERM, signal.SIGINT)[i % 2]
    # Before its first step a run has nothing to save.
    moment = max(moment, disturbed.step(workdir) + 1)
    process = command(f'--workdir={workdir}', config=config)
    disturbed.reach(workdir, moment, process)
    time.sleep(rng.uniform(0, 0.1))
    running, before = process.poll() is None, disturbed.step(workdir)
    code, said = stop(process, number)
    if running:
      assert code == 128 + number
      assert f'stopped by {signal.Signals(number).name}: step ' in said
      # No step that was told of is done again.
      assert disturbed.saved(workdir)[-1] >= before
      assert not disturbed.saving(workdir)
  disturbed.finish(command(f'--workdir={workdir}', config=config))
  disturbed.assert_same(workdir, whole)
  tried(2, 'SIGTERM and SIGINT, by turns', len(moments))


def interrupt_twice(process):
  """Sends SIGINT, and another as soon as the first one was taken."""
  process.send_signal(signal.SIGINT)
  status = pathlib.Path(f'/proc/{process.pid}/status')
  # Until then both of them are one.
  pending = 1 << (signal.SIGINT - 1)
  while int(re.search(r'ShdPnd:\s*(\w+)', status.read_text())[1], 16) & pending:
    time.sleep(0.001)
  return stop(process, signal.SIGINT)


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(command, tiny_data, tmp_path, tried):
  config = f'{disturbed.JOBS}:{tiny_data},student'
  for reached in (20, 60, 100):
    process = command(f'--workdir={tmp_path}', config=config)
    disturbed.reach(tmp_path, reached, process)
    code, said = interrupt_twice(process)
    # The kernel's own end by the signal, or the same by the run's watch.
    assert code in (-signal.SIGINT, 128 + signal.SIGINT)
    if 'stopped by' not in said:
      break
    # On a busy machine the step may be saved before the second one comes.
  else:
    pytest.fail('three times the step was saved first')
  tried(2, 'a second SIGINT', 1)
