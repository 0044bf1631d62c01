"""Several processes of kdjax on one machine.

  python launch/local.py --processes=2 --devices_per_process=4 -- \
      --config=configs/gkd_xsum.py:embedded --workdir=runs/two

What follows `--` goes to `python -m kdjax.main`. The processes have simulated
devices of the CPU, to rehearse on one machine what is to run on several; with
--gpus they share out the machine's GPUs, in order: --processes=8 --gpus gives
each of eight processes one. (One process drives all GPUs or TPU chips of a
machine by itself, without this script. That is mostly as fast.)

A signal (Ctrl-C) goes to all processes: they save the same step and stop. If a
process dies, the others are ended. The same command resumes either way.
"""

import argparse
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]

# Seconds that the others have to end by themselves. Most can't: they wait for
# the dead one, and JAX ends them after half a minute.
GRACE = 10.0


def main(argv: Sequence[str]) -> int:
  """Runs the processes to their end; returns the exit code."""
  args, command = _parse(argv)
  # Sessions of their own: the terminal's Ctrl-C would come twice.
  processes = [
    subprocess.Popen(
      [sys.executable, '-u', '-m', 'kdjax.main', *command],
      env={**os.environ, **environment},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors='replace',
      start_new_session=True,
    )
    for environment in environments(**vars(args))
  ]
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: _signal(processes, number))
  readers = [
    threading.Thread(target=_copy, args=(i, process.stdout), daemon=True)
    for i, process in enumerate(processes)
  ]
  for reader in readers:
    reader.start()
  failed = _watch(processes)
  for reader in readers:
    reader.join()
  if failed is None:
    return 0
  codes = [process.returncode for process in processes]
  # Those that lose another one don't know what it died of.
  full = os.EX_IOERR
  code = full if full in codes else codes[failed]
  cause = f'exit code {code}' if code > 0 else signal.Signals(-code).name
  # A signal to all of them, or a config that all refuse, has been said already.
  if code < 0 or any(other != code for other in codes):
    print(
      f'local.py: process {failed} of {args.processes} died first, by {cause}, '
      'and the others were ended. The same command goes on from the last '
      'checkpoint.',
      file=sys.stderr,
    )
  return code if code > 0 else 128 - code


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  argv = list(argv)
  cut = argv.index('--') if '--' in argv else len(argv)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--processes', type=int, required=True)
  parser.add_argument('--devices_per_process', type=int, default=1)
  parser.add_argument('--gpus', action='store_true', help="the machine's GPUs")
  args = parser.parse_args(argv[:cut])
  if args.processes < 1 or args.devices_per_process < 1:
    parser.error('--processes and --devices_per_process must be at least 1')
  if not argv[cut + 1 :]:
    parser.error('give the flags of kdjax.main after --, such as -- --config=')
  return args, argv[cut + 1 :]


def environments(
  processes: int, devices_per_process: int, gpus: bool = False
) -> list[dict[str, str]]:
  """Returns the variables by which JAX knows each process and its devices."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
  found = []
  for i in range(processes):
    here = {
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': str(processes),
      'JAX_PROCESS_ID': str(i),
      'PYTHONPATH': path,
    }
    if gpus:
      first = i * devices_per_process
      mine = map(str, range(first, first + devices_per_process))
      here['JAX_LOCAL_DEVICE_IDS'] = ','.join(mine)
    else:
      flags = os.environ.get('XLA_FLAGS', '')
      flags += f' --xla_force_host_platform_device_count={devices_per_process}'
      here |= {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
    found.append(here)
  return found


def _copy(index: int, stream) -> None:
  """Prints a process's lines with its number before each."""
  for line in stream:
    print(f'[{index}] {line}', end='', flush=True)


def _watch(processes: Sequence[subprocess.Popen]) -> int | None:
  """Waits for all; returns which was the first to fail, or None."""
  failed, deadline = None, 0.0
  while True:
    codes = [process.poll() for process in processes]
    if failed is None and any(codes):
      failed = next(i for i, code in enumerate(codes) if code)
      deadline = time.monotonic() + GRACE
    if None not in codes:
      return failed
    if failed is not None and time.monotonic() > deadline:
      _signal(processes, signal.SIGKILL)
    time.sleep(0.1)


def _signal(processes: Sequence[subprocess.Popen], number: int) -> None:
  for process in processes:
    if process.poll() is None:
      process.send_signal(number)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
