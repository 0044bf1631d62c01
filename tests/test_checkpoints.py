"""Checkpoints come back bit for bit, and survive a kill."""

import dataclasses
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
    with pytest.raises(ValueError, match='delete that directory'):
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
  root = pathlib.Path(checkpoints.__file__).parents[1]
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


def test_claim(tmp_path):
  config = {'seed': 1, 'optimizer': {'name': 'adamw'}, 'log': {'every': 5}}
  checkpoints.claim(tmp_path / 'run', config)
  checkpoints.claim(tmp_path / 'run', config)
  written = (tmp_path / 'run' / 'config.json').read_text()
  other = {'optimizer': {'name': 'sgd'}, 'log': {'every': 6}, 'steps': (1, 2)}
  with pytest.raises(ValueError) as error:
    checkpoints.claim(tmp_path / 'run', other, ['log.*'])
  message = str(error.value)
  for line in (
    'optimizer.name: "adamw" → "sgd"',
    'seed: 1 → (absent)',
    'steps: (absent) → [1, 2]',
    '--workdir',
  ):
    assert line in message
  assert 'log.every' not in message
  assert (tmp_path / 'run' / 'config.json').read_text() == written
  checkpoints.claim(
    tmp_path / 'run', {**config, 'log': {'every': 6}}, ['log.*']
  )
  assert '6' in (tmp_path / 'run' / 'config.json').read_text()


def test_claim_refuses_a_bucket():
  with pytest.raises(ValueError, match='gs://a/b: give a directory'):
    checkpoints.claim('gs://a/b', {'seed': 1})


def test_claim_refuses_checkpoints_of_unknown_origin(tmp_path):
  (tmp_path / 'checkpoints' / '100').mkdir(parents=True)
  with pytest.raises(ValueError, match='no config.json'):
    checkpoints.claim(tmp_path, {'seed': 1})
  (tmp_path / 'config.json').write_text('{"seed":')
  with pytest.raises(ValueError, match='not JSON'):
    checkpoints.claim(tmp_path, {'seed': 1})


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
