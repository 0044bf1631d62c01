"""Checkpoints come back bit for bit, and survive kills and damage."""

import dataclasses
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import kdjax
from kdjax import checkpoints, optimizers, partitioning
from kdjax import state as state_lib


def _state(width=5, seed=3):
  key = jax.random.key(seed)
  params = {
    'student': {
      'dense': {
        'kernel': jax.random.normal(key, (4, width)),
        'bias': jnp.zeros(width),
      }
    }
  }
  optimizer = optimizers.build(optimizers.OptimizerConfig(trainable='kernel'))
  return state_lib.create(params, optimizer, seed)


def _iterator():
  data = grain.MapDataset.range(50).shuffle(seed=1).repeat().batch(4)
  return iter(data.to_iter_dataset())


def _raw(tree):
  def leaf(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.key_data(x)
    return np.asarray(x)

  return jax.tree.map(leaf, tree)


def _assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, _raw(a), _raw(b))


def test_round_trip_is_bitwise(tmp_path):
  state, data = _state(), _iterator()
  next(data)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.latest is None
    assert manager.save(7, state, data, {'eval/rouge2': 0.5})
    expected = [next(data) for _ in range(3)]

  fresh = _iterator()
  with checkpoints.Checkpoints(tmp_path) as manager:
    step, restored = manager.restore(
      checkpoints.abstract(_state(seed=9)), fresh
    )
    assert manager.metrics(7) == {'eval/rouge2': 0.5}
    with pytest.raises(ValueError, match=r'step 8 .* there are \[7\]'):
      manager.restore(checkpoints.abstract(state), step=8)
  assert step == 7
  _assert_same(restored, state)
  assert jax.random.normal(restored.key) == jax.random.normal(state.key)
  for batch in expected:
    np.testing.assert_array_equal(next(fresh), batch)


def test_the_last_and_the_best_stay(tmp_path):
  scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: float('nan'), 5: 0.3, 6: None}
  with checkpoints.Checkpoints(tmp_path, keep_last=2) as manager:
    for step, score in scores.items():
      metrics = None if score is None else {'eval/rouge2': score}
      manager.save(step, _state(), _iterator(), metrics)
    manager.wait()
    assert manager.steps == [2, 5, 6]
    assert (manager.latest, manager.best) == (6, 2)
  with checkpoints.Checkpoints(tmp_path, keep_last=2) as manager:
    assert (manager.steps, manager.best) == ([2, 5, 6], 2)
  with checkpoints.Checkpoints(tmp_path, best_mode='min') as manager:
    assert manager.best == 5


def test_a_step_is_not_saved_twice(tmp_path):
  with checkpoints.Checkpoints(tmp_path, every=3) as manager:
    assert [step for step in range(8) if manager.due(step)] == [3, 6]
    assert manager.save(3, _state(), _iterator())
    assert not manager.save(3, _state(seed=4), _iterator())
    _, restored = manager.restore(checkpoints.abstract(_state()))
  _assert_same(restored, _state())


def test_state_may_be_donated_at_once(tmp_path):
  # Large, so that the write is under way when the buffers are taken over.
  state = {'x': jax.random.normal(jax.random.key(0), (4_000_000,))}
  expected = np.array(state['x'])
  add = jax.jit(lambda tree: {'x': tree['x'] + 1}, donate_argnums=0)
  with checkpoints.Checkpoints(tmp_path) as manager:
    shapes = checkpoints.abstract(state)
    manager.save(1, state, _iterator())
    for _ in range(5):
      state = add(state)
    jax.block_until_ready(state)
    _, restored = manager.restore(shapes)
  np.testing.assert_array_equal(restored['x'], expected)


def test_another_shape_is_refused_by_name(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(1, _state(), _iterator())
    with pytest.raises(ValueError) as error:
      manager.restore(checkpoints.abstract(_state(width=6)))
  message = str(error.value)
  assert 'a checkpoint of another shape' in message
  assert (
    'params/student/dense/kernel: checkpoint float32[4, 5], model '
    'float32[4, 6]' in message
  )
  assert '--workdir' in message


def test_missing_arrays_are_refused_by_name(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(1, _state(), _iterator())
    other = dataclasses.replace(_state(), behaviour={'w': jnp.ones(2)})
    with pytest.raises(ValueError, match='behaviour/w: checkpoint has none'):
      manager.restore(checkpoints.abstract(other))


def test_unfinished_and_half_deleted_steps_are_ignored(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(1, _state(), _iterator())
    manager.save(2, _state(seed=4), _iterator())
  directory = tmp_path / 'checkpoints'
  unfinished = directory / '3.orbax-checkpoint-tmp'
  shutil.copytree(directory / '2', unfinished)
  # The deletion of an old step was cut short.
  shutil.rmtree(directory / '1' / 'state')
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.latest == 2
    step, restored = manager.restore(checkpoints.abstract(_state()))
    with pytest.raises(ValueError, match='step 1: state/.* is missing'):
      manager.restore(checkpoints.abstract(_state()), step=1)
    manager.save(3, _state(seed=5), _iterator())
    manager.wait()
    assert manager.latest == 3
  assert step == 2
  _assert_same(restored, _state(seed=4))
  assert not unfinished.exists()


_KILLED = """
import sys, jax, jax.numpy as jnp
from kdjax import checkpoints
class Data:
  def get_state(self): return {'at': 1}
manager = checkpoints.Checkpoints(sys.argv[1], keep_last=2)
for step in range(1, 1000):
  state = {'x': jnp.full(500_000, step, jnp.float32), 'step': jnp.int32(step)}
  manager.save(step, state, Data())
  if step > 3: print(step, flush=True)
"""


def test_a_killed_process_leaves_a_whole_step(tmp_path):
  root = pathlib.Path(checkpoints.__file__).parents[2]
  process = subprocess.Popen(
    [sys.executable, '-c', _KILLED, str(tmp_path)],
    cwd=root,
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': str(root)},
  )
  process.stdout.readline()
  time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  shapes = checkpoints.abstract({'x': jnp.zeros(500_000), 'step': jnp.int32(0)})
  with checkpoints.Checkpoints(tmp_path, keep_last=2) as manager:
    step, state = manager.restore(shapes)
  assert step >= 3
  assert state['step'] == step
  np.testing.assert_array_equal(state['x'], np.full(500_000, step))


def test_any_object_with_a_state_is_data(tmp_path):
  class Counter:
    at = 0

    def get_state(self):
      return {'at': self.at}

    def set_state(self, state):
      self.at = state['at']

  counter = Counter()
  counter.at = 5
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(1, _state(), counter)
    counter.at = 6
    manager.restore(checkpoints.abstract(_state()), counter)
  assert counter.at == 5


def test_bad_arguments_are_named(tmp_path):
  with pytest.raises(ValueError, match="best_mode='most'"):
    checkpoints.Checkpoints(tmp_path, best_mode='most')
  with pytest.raises(ValueError, match='every=0'):
    checkpoints.Checkpoints(tmp_path, every=0)


def test_restored_arrays_are_sharded_as_asked(tmp_path):
  """The typed key, too, so that jit takes the state as it took the first."""
  mesh = partitioning.make_mesh()
  with jax.set_mesh(mesh), checkpoints.Checkpoints(tmp_path) as manager:
    state = _state()
    manager.save(1, state, _iterator())
    _, restored = manager.restore(checkpoints.abstract(state))
    checkpoints.abstract(restored)

  def same(asked, found):
    assert found.sharding.is_equivalent_to(asked.sharding, asked.ndim)

  jax.tree.map(same, state, restored)


def _saved(directory, steps, **options):
  """Saves steps whose state is their number."""
  with checkpoints.Checkpoints(directory, keep_last=9, **options) as manager:
    for step in steps:
      manager.save(step, {'x': jnp.full(100, step)}, _iterator())


def _latest(directory, **options):
  shapes = checkpoints.abstract({'x': jnp.zeros(100, jnp.int32)})
  with checkpoints.Checkpoints(directory, **options) as manager:
    step, state = manager.restore(shapes)
  np.testing.assert_array_equal(state['x'], np.full(100, step))
  return step


def _array(checkpoint):
  """The largest of the files that hold a checkpoint's arrays."""
  files = [x for x in (checkpoint / 'state').rglob('*') if x.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def test_damaged_steps_make_room_for_the_newest_whole_one(tmp_path, caplog):
  _saved(tmp_path, [1, 2, 3, 4])
  directory = tmp_path / 'checkpoints'
  path = _array(directory / '3')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  shutil.rmtree(directory / '4' / 'data')
  before = (directory / '3' / 'seal.json').read_bytes()
  assert _latest(tmp_path) == 2
  assert 'step 4 is damaged (data/position.json is missing)' in caplog.text
  assert 'step 3 is damaged (the content of state/' in caplog.text
  assert caplog.text.count('going on from step 2') == 2
  # Nothing is lost, and the run can save these steps again.
  assert (tmp_path / 'damaged' / '3' / 'seal.json').read_bytes() == before
  _saved(tmp_path, [3])
  assert _latest(tmp_path) == 3
  (directory / '3' / 'seal.json').unlink()
  assert _latest(tmp_path) == 2
  assert (tmp_path / 'damaged' / '3-2').is_dir()


def test_who_only_reads_moves_nothing(tmp_path, caplog, contents):
  _saved(tmp_path, [1, 2])
  _array(tmp_path / 'checkpoints' / '2').write_bytes(b'')
  before = contents(tmp_path)
  assert _latest(tmp_path, read_only=True) == 1
  assert 'step 2 is damaged' in caplog.text and 'from step 1' in caplog.text
  assert contents(tmp_path) == before


def test_a_damaged_best_step_gives_way_to_the_next(tmp_path, caplog):
  shapes = checkpoints.abstract({'x': jnp.zeros(3)})
  with checkpoints.Checkpoints(tmp_path, keep_best=2) as manager:
    for step, score in {1: 0.7, 2: 0.9, 3: 0.1, 4: 0.2, 5: 0.3}.items():
      state = {'x': jnp.full(3, float(step))}
      manager.save(step, state, _iterator(), {'eval/rouge2': score})
    manager.wait()
    assert manager.steps == [1, 2, 3, 4, 5]
    assert manager.restore(shapes, best=True)[0] == 2
    _array(tmp_path / 'checkpoints' / '2').write_bytes(b'')
    assert manager.restore(shapes, best=True)[0] == 1
  assert 'step 2 is damaged' in caplog.text


def test_where_nothing_is_whole_nothing_is_trained_over(tmp_path, contents):
  _saved(tmp_path, [1, 2])
  for step in (1, 2):
    _array(tmp_path / 'checkpoints' / str(step)).write_bytes(b'')
  before = contents(tmp_path)
  with pytest.raises(ValueError, match='step 2: .*; step 1: .* Put back'):
    checkpoints.Checkpoints(tmp_path)
  assert contents(tmp_path) == before


def test_a_first_step_that_was_cut_short_is_saved_again(tmp_path, caplog):
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.latest is None
  assert 'saving it was cut short' in caplog.text
  assert 'going on from the start' in caplog.text


def test_another_config_says_so_and_another_version_is_told(
  tmp_path, monkeypatch, caplog
):
  _saved(tmp_path, [1], config={'seed': 0, 'log': 1})
  assert _latest(tmp_path, config={'seed': 0, 'log': 2}, harmless=['log']) == 1
  assert not caplog.text
  with pytest.raises(ValueError, match='another config.*\n  seed: 0 → 1'):
    _latest(tmp_path, config={'seed': 1, 'log': 1})
  monkeypatch.setattr(kdjax, '__version__', '9.9')
  assert _latest(tmp_path) == 1
  assert 'with kdjax 0' in caplog.text and 'this is 9.9' in caplog.text


def test_metrics_may_come_later(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(1, _state(), _iterator())
    manager.add_metrics(1, {'eval/rouge2': 0.5})
    assert manager.best == 1
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.metrics(1) == {'eval/rouge2': 0.5}
    manager.restore(checkpoints.abstract(_state()))


def test_a_save_that_fails_names_the_folder_and_leaves_the_last(
  tmp_path, monkeypatch
):
  _saved(tmp_path, [1])
  monkeypatch.setattr(
    ocp,
    'save_checkpointables_async',
    lambda *args: _Failing(RuntimeError('UNKNOWN: No space left on device')),
  )
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(2, _state(), _iterator())
    with pytest.raises(OSError, match='No space left.*checkpoints') as error:
      manager.wait()
    assert error.value.errno == errno.ENOSPC
    assert manager.steps == [1]


class _Failing:
  def __init__(self, error):
    self._error = error

  def result(self):
    raise self._error
