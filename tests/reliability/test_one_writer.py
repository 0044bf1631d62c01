"""Promise 4: a workdir has one writer at a time, and none once that is dead."""

import pathlib
import signal
import time

import pytest

from tests.reliability import disturbed


def halt(process):
  """Stops a process, and waits until the last of its threads stands still."""
  process.send_signal(signal.SIGSTOP)
  threads = pathlib.Path(f'/proc/{process.pid}/task')

  def states():
    # After the name, which is in brackets and may hold anything.
    told = [path.read_text() for path in threads.glob('*/stat')]
    return {each.rpartition(')')[2].split()[0] for each in told}

  deadline = time.monotonic() + 60
  while states() != {'T'}:
    assert time.monotonic() < deadline, states()
    time.sleep(0.01)


@pytest.mark.slow
def test_the_second_run_is_refused_while_the_first_lives(
  command, tiny_data, tmp_path, contents, tries, tried
):
  config = f'{disturbed.JOBS}:{tiny_data},data'
  start = lambda: command(f'--workdir={tmp_path}', config=config)
  count = tries(1, 5)
  for i in range(count):
    first = start()
    reached = 20 * (i + 1)
    disturbed.reach(tmp_path, reached, first)
    halt(first)  # it lives, and does nothing more
    before = contents(tmp_path)
    second = start()
    printed, said = second.communicate(timeout=300)
    assert second.returncode == 1
    assert f'another run writes into {tmp_path}: process {first.pid} on' in said
    assert 'Traceback' not in said and not printed
    assert contents(tmp_path) == before
    first.send_signal(signal.SIGKILL)
    first.communicate()
  disturbed.finish(start())
  assert disturbed.saved(tmp_path)[-1] == 300
  tried(4, 'a second run, refused', count)
  tried(4, 'a run after the first was killed', count)
