"""Promise 2: a run that is asked to stop saves first, and goes on later."""

import signal
import time

import numpy as np
import pytest

from tests.reliability import disturbed

# A step and a save of the tiny run take milliseconds; the rest is Python's end
# and a machine that is busy with other tests.
GRACE_SECONDS = 20


def stop(process, number):
  """Asks a process to stop; returns its exit code and how long that took."""
  began = time.monotonic()
  process.send_signal(number)
  process.communicate(timeout=300)
  return process.returncode, time.monotonic() - began


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
    code, seconds = stop(process, number)
    if running:
      assert code == 128 + number and seconds < GRACE_SECONDS
      # No step that was told of is done again.
      assert disturbed.saved(workdir)[-1] >= before
      assert not disturbed.saving(workdir)
  disturbed.finish(command(f'--workdir={workdir}', config=config))
  disturbed.assert_same(workdir, whole)
  tried(2, 'SIGTERM and SIGINT, by turns', len(moments))


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(command, tiny_data, tmp_path, tried):
  process = command(
    f'--workdir={tmp_path}', config=f'{disturbed.JOBS}:{tiny_data},student'
  )
  disturbed.reach(tmp_path, 20, process)
  process.send_signal(signal.SIGINT)
  code, seconds = stop(process, signal.SIGINT)
  # The kernel's own end by the signal, or the same by the run's watch.
  assert code in (-signal.SIGINT, 128 + signal.SIGINT)
  assert seconds < 5
  tried(2, 'a second SIGINT', 1)
