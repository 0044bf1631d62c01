"""Jobs run on this machine, a number of them at once."""

import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from kdjax.sweep.jobs import Job

ROOT = pathlib.Path(__file__).parents[2]
FAILED = 'failed.txt'
# Lines of a failed run's output that its FAILED keeps.
_LAST = 20

PROGRAM = sys.executable, '-m', 'kdjax.main'

# Told of every job that ends: the job, its exit code, its seconds.
Told = Callable[[Job, int, float], None]


def execute(
  out: pathlib.Path,
  jobs: Sequence[Job],
  *,
  at_once: int = 1,
  gpus: bool = False,
  told: Told = lambda job, code, seconds: None,
  program: Sequence[str] = PROGRAM,
) -> dict[str, int]:
  """Runs jobs to their end; returns the exit codes of those that fail, by name.

  What a job prints goes to `log.txt` of its workdir, and the end of it to
  `failed.txt` if it fails, which stops no other. A signal (Ctrl-C) goes to all:
  they save and stop, and no further one starts.

  Args:
    out: the sweep's folder.
    jobs: in the order in which they start.
    at_once: how many. Several share out this process's cores.
    gpus: give each that runs one of the machine's GPUs.
    told: of jobs' ends.
    program: what takes their flags.

  Raises:
    ValueError: another process is at work in `out`.
    SystemExit: after a signal.
  """
  out.mkdir(parents=True, exist_ok=True)
  with _locked(out) as lock, _Pool(out, lock, told, program) as pool:
    for slot in _slots(at_once, gpus):
      pool.slots.put(slot)
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
      for ended in [threads.submit(pool.work, job) for job in jobs]:
        ended.result()
  if pool.signal is not None:
    raise SystemExit(128 + pool.signal)
  return pool.failed


def _slots(at_once: int, gpus: bool) -> list[dict[str, object]]:
  """What each of the jobs at once has to itself: a GPU, or cores."""
  if gpus:
    return [{'gpu': str(i)} for i in range(at_once)]
  if at_once == 1 or not hasattr(os, 'sched_getaffinity'):
    return [{} for _ in range(at_once)]
  cores = sorted(os.sched_getaffinity(0))
  # More jobs than cores share them all.
  parts = [set(cores[i::at_once]) or set(cores) for i in range(at_once)]
  return [{'cores': part} for part in parts]


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[int]:
  """Holds a folder for this process and those that it starts.

  They inherit the lock, so it lasts as long as one of them does.
  """
  with (out / '.lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise ValueError(
        f'{out} is in use: a sweep, or a run that one left behind, still '
        'holds it. Wait for it, or end it.'
      ) from None
    yield file.fileno()


class _Pool:
  """Processes at work, and what became of those before."""

  def __init__(
    self, out: pathlib.Path, lock: int, told: Told, program: Sequence[str]
  ):
    self._out, self._lock, self._told = out, lock, told
    self._program = program
    self._running: dict[str, subprocess.Popen] = {}
    self._mutex = threading.Lock()
    self._before: dict[int, object] = {}
    self.slots: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    self.failed: dict[str, int] = {}
    self.signal: int | None = None

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._stop)
    return self

  def __exit__(self, *unused):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _stop(self, number, unused_frame):
    self.signal = number
    for process in list(self._running.values()):
      process.send_signal(number)

  def work(self, job: Job) -> None:
    """Runs a job in a free slot, unless a signal has come."""
    if self.signal is not None:
      return
    slot, begin = self.slots.get(), time.monotonic()
    try:
      code = self._run(job, slot)
    finally:
      self.slots.put(slot)
    if self.signal is None:
      with self._mutex:
        if code:
          self.failed[job.name] = code
        self._told(job, code, time.monotonic() - begin)

  def _run(self, job: Job, slot: dict[str, object]) -> int:
    workdir = self._out / job.name
    workdir.mkdir(exist_ok=True)
    (workdir / FAILED).unlink(missing_ok=True)
    environment = {**os.environ, 'PYTHONPATH': _python_path()}
    if 'gpu' in slot:
      environment['CUDA_VISIBLE_DEVICES'] = slot['gpu']
    with (workdir / 'log.txt').open('w') as log:
      process = subprocess.Popen(
        [*self._program, *job.arguments(self._out)],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        # The terminal's Ctrl-C would come twice.
        start_new_session=True,
        pass_fds=[self._lock],
      )
      if 'cores' in slot:
        os.sched_setaffinity(process.pid, slot['cores'])
      self._running[job.name] = process
      if self.signal is not None:
        process.send_signal(self.signal)
      code = process.wait()
      del self._running[job.name]
    if code and self.signal is None:
      text = (workdir / 'log.txt').read_text(errors='replace')
      last = '\n'.join(text.splitlines()[-_LAST:])
      (workdir / FAILED).write_text(f'exit code {code}\n{last}\n')
    return code


def _python_path() -> str:
  return os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
