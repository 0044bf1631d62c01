"""Processes of kdjax, what ends them, and what they leave behind."""

import contextlib
import json
import pathlib
import resource
import time

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

# What the clock decides over.
CLOCK = ('seconds/', 'tokens_per_second/', 'total/seconds')

JOBS = pathlib.Path(__file__).with_name('jobs.py')


def lines(workdir):
  """The lines of metrics.jsonl, without what the clock decides over."""
  path = workdir / 'metrics.jsonl'
  found = [json.loads(line) for line in path.read_text().split('\n') if line]
  return [
    {k: v for k, v in line.items() if not k.startswith(CLOCK)} for line in found
  ]


def step(workdir):
  """The last step that a run told of; it may be writing the line."""
  path = workdir / 'metrics.jsonl'
  text = path.read_text() if path.exists() else ''
  whole = [line for line in text.split('\n')[:-1] if line]
  return json.loads(whole[-1])['step'] if whole else -1


def saving(workdir):
  """Whether a checkpoint is being written: it is there, but not sealed."""
  folders = list((workdir / 'checkpoints').glob('[0-9]*'))
  return any(not (folder / 'seal.json').exists() for folder in folders)


def saved(workdir):
  """The steps of the checkpoints that are whole."""
  seals = (workdir / 'checkpoints').glob('[0-9]*/seal.json')
  return sorted(int(path.parent.name) for path in seals)


def arrays(workdir):
  """All arrays of the last checkpoint, by path: parameters, optimizer, ..."""
  path = workdir / 'checkpoints' / str(max(saved(workdir)))
  tree = ocp.load(path, checkpointable_name='state')
  return {
    jax.tree_util.keystr(name): np.asarray(
      jax.random.key_data(leaf)
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      else leaf
    )
    for name, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def assert_same(workdir, whole):
  """Asserts that a disturbed run left what an undisturbed one did, bitwise."""
  assert lines(workdir) == lines(whole)
  found, expected = arrays(workdir), arrays(whole)
  assert set(found) == set(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  for name in ('student/model.safetensors', 'examples.jsonl'):
    assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name


def finish(process):
  """Waits for a process, and returns what it printed."""
  printed, said = process.communicate(timeout=600)
  assert process.returncode == 0, said
  return printed + said


def reach(workdir, moment, process):
  """Waits until a run has told of a step; returns whether it goes on."""
  return _wait(lambda: step(workdir) >= moment, process)


def reach_save(workdir, process):
  """Waits until a run saves; returns whether it goes on."""
  return _wait(lambda: saving(workdir), process)


def _wait(condition, process, seconds=300):
  deadline = time.monotonic() + seconds
  while process.poll() is None:
    if condition():
      return True
    assert time.monotonic() < deadline, 'it never came to that'
    time.sleep(0.001)
  return False


@contextlib.contextmanager
def small_files(room):
  """Has no file that this process writes get larger, as on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
