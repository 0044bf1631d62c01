"""Peak memory: of the process on a CPU, of the allocator on a GPU.

On a CPU a peak is read in a process of its own (see `fresh`), from Linux: the
high-water mark is set back once everything is compiled, and large blocks are
given back to the system as soon as they are free (see `ENVIRONMENT`).
"""

import contextlib
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Blocks of 64 KiB and more go back when freed: else the allocator keeps what
# compilation left, and the peak of what follows hides in it.
ENVIRONMENT = {
  'MALLOC_MMAP_THRESHOLD_': str(2**16),
  'MALLOC_TRIM_THRESHOLD_': str(2**16),
}
MIB = 2**20
_STATUS = pathlib.Path('/proc/self/status')
_RESET = pathlib.Path('/proc/self/clear_refs')


# Returns the bytes that an accelerator's allocator holds, and has held at most.
Gauge = Callable[[], tuple[int, int]]


class Peak:
  """Bytes that a process held at most, over those when this was made.

  On a GPU the allocator's mark can't be set back: there it counts from the
  process's beginning.
  """

  def __init__(self, gauge: Gauge | None = None):
    """Takes an accelerator's gauge, or None on a CPU."""
    self._gauge, self._before = gauge, 0
    if gauge:
      self._before = gauge()[0]
    elif _STATUS.exists():
      _RESET.write_text('5')  # sets VmHWM to the present size
      self._before = _status('VmRSS')

  def read(self) -> float:
    """Returns the bytes; NaN where the system doesn't tell."""
    if self._gauge:
      return float(self._gauge()[1] - self._before)
    if not _STATUS.exists():
      return math.nan
    return float(_status('VmHWM') - self._before)


def gauge() -> Gauge | None:
  """Returns that of jax's first device, None if it is a CPU."""
  import jax

  device = jax.devices()[0]
  if device.platform == 'cpu':
    return None

  def read():
    stats = device.memory_stats()
    return stats['bytes_in_use'], stats['peak_bytes_in_use']

  return read


@contextlib.contextmanager
def environment() -> Iterator[None]:
  """Sets `ENVIRONMENT` for processes that are started inside."""
  before = {name: os.environ.get(name) for name in ENVIRONMENT}
  os.environ.update(ENVIRONMENT)
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


def _status(field: str) -> int:
  lines = _STATUS.read_text().splitlines()
  (line,) = [line for line in lines if line.startswith(f'{field}:')]
  return int(line.split()[1]) * 1024


def temporary(compiled: Any) -> float:
  """Returns the bytes that XLA set aside for a compiled function's insides."""
  analysis = compiled.memory_analysis()
  return float(analysis.temp_size_in_bytes) if analysis else math.nan


def fresh(module: str, **point: Any) -> dict[str, Any]:
  """Runs `python -m module --point=...`; returns the JSON it prints last.

  Raises:
    RuntimeError: it failed; ends with what it wrote.
  """
  command = [sys.executable, '-m', module, f'--point={json.dumps(point)}']
  with environment():
    done = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parents[1],
      capture_output=True,
      text=True,
    )
  if done.returncode:
    raise RuntimeError(f'{command} failed:\n{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])
