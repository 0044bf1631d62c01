"""The first signal is noted, and a second Ctrl-C ends the process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kdjax.interruption import Interrupted, Interruption


@pytest.fixture
def interruptible():
  """SIGINT as in a shell: a job in the background inherits it ignored."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def test_another_sigterm_changes_nothing(interruptible):
  with Interruption() as stop:
    for _ in range(3):
      os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_second_interrupt_ends_at_once(interruptible):
  with Interruption() as stop:
    assert stop.signal is None
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_what_checks_leaves_at_once(interruptible):
  with Interruption() as stop:
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted) as left:
      stop.check()
  assert left.value.args == (signal.SIGTERM,)


def test_handlers_are_as_they_were(interruptible):
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with Interruption():
    os.kill(os.getpid(), signal.SIGINT)
  after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  assert after == before
  assert signal.set_wakeup_fd(-1) == -1


# The main thread waits within C, where no handler of Python's runs, as it does
# for a device: for a lock that it holds itself.
_WAITS = """
import ctypes, signal, sys
from kdjax.interruption import Interruption
signal.signal(signal.SIGINT, int(sys.argv[1]))
lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.c_buffer(64)
with Interruption():
  lock(mutex)
  print('waits', flush=True)
  lock(mutex)
"""


@pytest.mark.parametrize('before', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_second_interrupt_ends_a_process_that_waits(before):
  process = subprocess.Popen(
    [sys.executable, '-c', _WAITS, str(int(before))],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'waits\n'
  time.sleep(1)  # until it does
  process.send_signal(signal.SIGTERM)
  process.send_signal(signal.SIGINT)
  time.sleep(0.2)
  assert process.poll() is None, 'the first one is but noted'
  began = time.monotonic()
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=30)
  assert time.monotonic() - began < 25
  assert process.returncode == 128 + signal.SIGINT
  assert 'ended at once' in said
