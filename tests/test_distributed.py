"""Several processes do what one does, stop together, and go on as another."""

import json
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

from kdjax import distributed

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / 'tests' / 'tiny.py'
EIGHT = '--xla_force_host_platform_device_count=8'

# One of two processes of four devices.
_ONE_OF_TWO = """
import jax, numpy as np
from kdjax import distributed, partitioning

with distributed.joined():
  me, devices = jax.process_index(), jax.devices()
  assert jax.process_count() == 2 and len(devices) == 8
  assert distributed.leads() == (me == 0)
  assert int(distributed.largest(me + 3)) == 4

  batch = {'x': np.arange(48, dtype=np.int32).reshape(16, 3)}
  mixed = devices[::2] + devices[1::2]
  for sizes in ({}, {'fsdp': 4}, {'fsdp': 2, 'tensor': 2}, {'tensor': 8}):
    for order in (devices, mixed, devices[::-1]):
      mesh = partitioning.make_mesh(devices=order, **sizes)
      rows = partitioning.local_rows(mesh, 16)
      # Groups of devices that share rows, in the order of the rows.
      groups = mesh.devices.reshape(-1, mesh.shape['tensor'])
      share = 16 // len(groups)
      mine = [any(d.process_index == me for d in each) for each in groups]
      expected = np.flatnonzero(np.repeat(mine, share))
      np.testing.assert_array_equal(rows, expected)

      part = {'x': batch['x'][rows]}
      for array in (
          partitioning.shard_batch(mesh, part, 16)['x'],
          partitioning.shard_batch(mesh, batch)['x']):
        assert array.shape == (16, 3)
        for shard in array.addressable_shards:
          np.testing.assert_array_equal(shard.data, batch['x'][shard.index])
        np.testing.assert_array_equal(distributed.fetch(array), batch['x'])
        np.testing.assert_array_equal(distributed.rows(array), rows)
        # Both processes hold the rows of a group; the first one's counts.
        values = np.repeat(rows * 10.0, 2).astype(np.float32) + me / 4
        merged = distributed.merge(values, array)
        assert merged.dtype == np.float32
        first = [group[0].process_index for group in groups]
        if mesh.shape['tensor'] == 1:
          whole = np.arange(16) * 10 + np.repeat(first, share) / 4
          np.testing.assert_array_equal(merged, np.repeat(whole, 2))
        assert set(merged - np.repeat(np.arange(16) * 10, 2)) <= {0, 0.25}
      params = {'kernel': np.arange(2.0**14).reshape(128, 128), 'none': None}
      kernel = partitioning.place(mesh, params)['kernel']
      np.testing.assert_array_equal(distributed.fetch(kernel), params['kernel'])
  print('done')
"""

# One that fails alone leaves; the other one waits for it in vain.
_FAILS = """
import errno
import jax
from kdjax import distributed
distributed.HEARTBEAT_SECONDS = 5
with distributed.joined():
  distributed.largest(1)
  if jax.process_index() == 1:
    raise OSError(errno.ENOSPC, 'mine alone')
  jax.block_until_ready(distributed.largest(2))
"""


# Judges responses by their length, and notes what it was asked.
_HEARD = """
import json, os
def length(prompts, responses, references):
  path = os.environ['HEARD'] + '.' + os.environ.get('JAX_PROCESS_ID', '0')
  with open(path, 'a') as file:
    heard = [[prompt, *gold] for prompt, gold in zip(prompts, references)]
    file.write(json.dumps(heard) + '\\n')
  return [len(response.split()) / 10 for response in responses]
"""

_CONFIG = """
import runpy
def get_config(data):
  c = runpy.run_path({tiny!r})['get_config'](data)
  c.micro_batch_size = 8
  with c.unlocked():
    c.recipe = {recipe!r}
  c.steps = 12
  c.log_every = c.checkpoint.every = 2
  c.eval.every = 6
  c.checkpoint.keep_last = 9
  c.checkpoint.export = 'last'
  return c
"""


def pair(code):
  """Runs code in two processes; returns (exit code, output) of each."""
  local = runpy.run_path(str(ROOT / 'launch' / 'local.py'))
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', code],
      cwd=ROOT,
      env={**os.environ, **environment},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for environment in local['environments'](2, 4)
  ]
  texts = [process.communicate(timeout=120)[0] for process in processes]
  return [(p.returncode, text) for p, text in zip(processes, texts)]


def test_two_processes_hold_their_rows_and_give_each_other_theirs():
  for code, text in pair(_ONE_OF_TWO):
    assert code == 0 and 'done' in text, text


@pytest.mark.slow
def test_one_that_fails_leaves_at_once_and_the_other_is_ended():
  began = time.monotonic()
  (waiting, said), (failed, text) = pair(_FAILS)
  assert failed == os.EX_IOERR and 'mine alone' in text
  # JAX ends it, unless its own connection has told it first.
  ended = waiting == -signal.SIGABRT and 'another task died' in said
  assert ended or (waiting == 1 and 'has lost another one' in said), said
  assert time.monotonic() - began < 60


@pytest.mark.parametrize(
  'message, lost',
  [('Gloo all-reduce failed: closed by peer', True), ('out of memory', False)],
)
def test_a_collective_that_fails_means_another_process_is_gone(
  monkeypatch, message, lost
):
  monkeypatch.setattr(distributed, '_initialize', lambda: None)
  monkeypatch.setattr(distributed.atexit, 'register', lambda *leave: None)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  expected = ConnectionError if lost else jax.errors.JaxRuntimeError
  with pytest.raises(expected, match=message), distributed.joined():
    raise jax.errors.JaxRuntimeError(message)


@pytest.fixture
def environment(monkeypatch):
  """Returns a function of variables to what JAX is asked for, or None."""
  asked = []

  def initialize(**options):
    asked.append(options)
    if 'num_processes' not in options:
      raise ValueError('coordinator_address should be defined.')

  def joined(**variables):
    for name in (
      'JAX_COORDINATOR_ADDRESS',
      'JAX_NUM_PROCESSES',
      'JAX_PROCESS_ID',
      'SLURM_NTASKS',
      'OMPI_COMM_WORLD_SIZE',
      'KUBERNETES_SERVICE_HOST',
      'TPU_WORKER_HOSTNAMES',  # planning sets it
      'TPU_PROCESS_ADDRESSES',
    ):
      monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
      monkeypatch.setenv(name, value)
    with distributed.joined():
      return asked.pop() if asked else None

  jax.devices()  # which starts JAX, by the variables that there are
  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  preemption = jax.config.jax_enable_preemption_service
  yield joined
  jax.config.update('jax_enable_preemption_service', preemption)


def test_processes_are_found_by_the_environment(environment):
  address = {'JAX_COORDINATOR_ADDRESS': 'host:1'}
  two = {'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}
  found = environment(**address, **two)
  assert (found['num_processes'], found['process_id']) == (2, 1)
  assert found['heartbeat_timeout_seconds'] < 60
  # JAX looks for a cluster, and finds none.
  assert 'num_processes' not in environment()
  for alone in (
    {'JAX_NUM_PROCESSES': '1'},
    {'SLURM_NTASKS': '1', 'SLURM_PROCID': '0'},
    {'KUBERNETES_SERVICE_HOST': '10.0.0.1'},
  ):
    assert environment(**alone) is None
  with pytest.raises(ValueError, match='but not JAX_PROCESS_ID'):
    environment(**address, JAX_NUM_PROCESSES='2')


@pytest.fixture(scope='module')
def run(tiny_data, caches, tmp_path_factory):
  """Starts a run on so many processes, with eight devices in all."""
  folder = tmp_path_factory.mktemp('configs')
  (folder / 'heard.py').write_text(_HEARD)
  recipes = {
    'gkd': {'name': 'gkd', 'lam': 0.5},
    'reinforce': {'name': 'reinforce', 'reward': 'heard:length'},
  }
  for name, recipe in recipes.items():
    text = _CONFIG.format(tiny=str(TINY), recipe=recipe)
    (folder / f'{name}.py').write_text(text)

  def start(processes, workdir, *flags, recipe='gkd'):
    main = [f'--config={folder}/{recipe}.py:{tiny_data}']
    main += [f'--workdir={workdir}', *flags]
    command = [sys.executable, 'launch/local.py', f'--processes={processes}']
    command += [f'--devices_per_process={8 // processes}', '--', *main]
    return subprocess.Popen(
      command,
      cwd=ROOT,
      env={
        **os.environ,
        **caches,
        'PYTHONPATH': str(folder),
        'HEARD': str(workdir / 'heard'),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return start


def finish(process):
  text, _ = process.communicate(timeout=400)
  assert process.returncode == 0, text
  return text


def weights(workdir):
  path = workdir / 'student' / 'model.safetensors'
  return safetensors.numpy.load_file(path)


def numbers(workdir):
  """The lines of metrics.jsonl without what the clock decides over."""
  text = (workdir / 'metrics.jsonl').read_text()
  return [
    {k: v for k, v in json.loads(line).items() if '/s' not in k}
    for line in text.splitlines()
  ]


def assert_close(a, b):
  """Processes add float32 in another order: 1e-5 is about 100 roundings."""
  assert weights(a).keys() == weights(b).keys()
  for name, found in weights(a).items():
    np.testing.assert_allclose(found, weights(b)[name], rtol=0, atol=1e-5)
  for one, other in zip(numbers(a), numbers(b), strict=True):
    assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
  assert table(a) == table(b)


def table(workdir):
  return (workdir / 'results.md').read_text()


@pytest.fixture(scope='module')
def two(run, tmp_path_factory):
  """An undisturbed run of two processes, and what was printed."""
  workdir = tmp_path_factory.mktemp('two')
  return workdir, finish(run(2, workdir, '--config.mesh.fsdp=2'))


@pytest.mark.slow
def test_two_processes_end_where_one_ends(two, run, tmp_path):
  workdir, text = two
  finish(run(1, tmp_path, '--config.mesh.fsdp=2'))
  assert_close(workdir, tmp_path)
  # The first one prints and writes, for both.
  said = [line[:3] for line in text.splitlines() if '| examples' in line]
  assert said == ['[0]']


def wait_for(workdir, step, process):
  """Returns once the metrics of a step are written."""
  path, deadline = workdir / 'metrics.jsonl', time.monotonic() + 300
  while not path.exists() or f'"step": {step},' not in path.read_text():
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.01)


@pytest.mark.slow
def test_stopped_and_killed_runs_end_bitwise_as_undisturbed_ones(
  two, run, tmp_path
):
  start = lambda: run(2, tmp_path, '--config.mesh.fsdp=2')
  process = start()
  wait_for(tmp_path, 2, process)
  process.send_signal(signal.SIGTERM)
  text, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM, text
  assert text.count('is saved, and the same command goes on') == 2
  steps = {int(p.name) for p in (tmp_path / 'checkpoints').glob('[0-9]*')}
  assert str(max(steps)) in text and max(steps) < 12

  process = start()
  wait_for(tmp_path, 8, process)
  pids = subprocess.check_output(['pgrep', '-P', str(process.pid)], text=True)
  os.kill(int(pids.split()[1]), signal.SIGKILL)
  began = time.monotonic()
  text, _ = process.communicate(timeout=60)
  assert time.monotonic() - began < 60
  assert process.returncode == 128 + signal.SIGKILL, text
  assert 'process 1 of 2 died first, by SIGKILL' in text
  assert f'resumed at step {max(steps)}' in text

  text = finish(start())
  assert 'resumed at step' in text
  for name, found in weights(tmp_path).items():
    np.testing.assert_array_equal(found, weights(two[0])[name])
  assert table(tmp_path) == table(two[0])


@pytest.mark.slow
def test_a_run_goes_on_as_another_number_of_processes_on_another_mesh(
  run, tmp_path
):
  """It sees the same examples in the same order, and learns the same."""
  before, after = tmp_path / 'before', tmp_path / 'after'
  before.mkdir()
  options = {'recipe': 'reinforce'}
  finish(run(2, before, '--config.mesh.fsdp=2', **options))
  shutil.copytree(before, after, ignore=shutil.ignore_patterns('heard*'))
  for step in (8, 10, 12):
    shutil.rmtree(after / 'checkpoints' / str(step))
  text = finish(run(1, after, '--config.mesh.tensor=2', **options))
  assert 'resumed at step 6' in text
  assert_close(before, after)

  def heard(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return lines[1:]  # the first one was a rehearsal

  halves = zip(heard(before / 'heard.0'), heard(before / 'heard.1'))
  whole = [first + second for first, second in halves]
  # A step judges samples, and the greedy responses that they are held against.
  assert [len(batch) for batch in whole] == [8] * 24
  assert heard(after / 'heard.0') == whole[12:]


@pytest.mark.slow
def test_two_processes_write_the_responses_of_one(run, tmp_path):
  flags = ['--mode=generate', '--config.generate.model=student']
  flags += ['--config.generate.shard_size=20', '--config.generate.beams=2']
  finish(run(2, tmp_path / '2', *flags, '--config.mesh.tensor=8'))
  finish(run(1, tmp_path / '1', *flags))
  one, other = (
    {path.name: path.read_text() for path in (tmp_path / n).iterdir()}
    for n in '12'
  )
  assert one.pop('lock') != other.pop('lock')  # who wrote, and when
  assert one == other
