"""Promise 4: a workdir has one writer at a time, and none once that is dead."""

import signal

import pytest

from tests.reliability import disturbed


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
    first.send_signal(signal.SIGSTOP)  # it lives, and does nothing more
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
