"""Shardings by rule; a computation on 8 devices equals the one on 1."""

import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from kdjax import partitioning, types

# Run on 8 simulated devices, which must be asked for before jax starts.
_ON_EIGHT = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import PartitionSpec as P
from kdjax import optimizers, partitioning, state
assert partitioning.make_mesh().shape == {'data': 8, 'fsdp': 1, 'tensor': 1}
mesh = partitioning.make_mesh(data=-1, fsdp=2, tensor=2)
assert mesh.shape == {'data': 2, 'fsdp': 2, 'tensor': 2}
one = partitioning.make_mesh(devices=jax.devices()[:1])
for sizes in ({'data': 3}, {'data': 1}, {'fsdp': 3}, {'data': -1, 'fsdp': -1}):
  try:
    partitioning.make_mesh(**sizes)
  except ValueError as error:
    assert all(f'{k}={v}' in str(error) for k, v in sizes.items()), error
  else:
    raise AssertionError(sizes)

keys = jax.random.split(jax.random.key(0), 3)
student = {
    'shared': {'embedding': jax.random.normal(keys[0], (512, 64))},
    'layers': {
        'mlp': {
            'wi_0': {'kernel': jax.random.normal(keys[1], (2, 64, 256)) / 8},
            'wo': {'kernel': jax.random.normal(keys[2], (2, 256, 64)) / 16},
        },
        'mlp_norm': {'scale': jnp.ones((2, 64))},
    },
    'odd': jnp.ones((129, 127)),
}
optimizer = optimizers.build(optimizers.OptimizerConfig())
whole = state.create({'student': student}, optimizer, 0)
shardings = partitioning.params_sharding(mesh, whole)
specs = jax.tree.map(lambda x: x.spec, shardings)
mlp = specs.params['student']['layers']['mlp']
assert mlp['wi_0']['kernel'] == P(None, 'fsdp', 'tensor')
assert mlp['wo']['kernel'] == P(None, 'tensor', 'fsdp')
assert specs.params['student']['shared']['embedding'] == P('tensor', 'fsdp')
assert specs.params['student']['odd'] == P(None, None)
assert specs.step == specs.key == P()
adam = specs.opt_state.inner_states['main'].inner_state[1][0]
assert adam.mu['student'] == specs.params['student']

def update(state, batch):
  def loss(params):
    p = params['student']
    h = p['shared']['embedding'][batch['tokens']]
    for i in range(2):
      h = h + jnp.tanh(h @ p['layers']['mlp']['wi_0']['kernel'][i]) @ (
          p['layers']['mlp']['wo']['kernel'][i])
    return jnp.mean(h**2)
  value, grads = jax.value_and_grad(loss)(state.params)
  return value, grads['student']['layers']

rows = {'tokens': np.arange(32, dtype=np.int32).reshape(8, 4)}
results = []
for m in (mesh, one):
  placed = jax.device_put(whole, partitioning.params_sharding(m, whole))
  batch = partitioning.shard_batch(m, rows)
  np.testing.assert_array_equal(batch['tokens'], rows['tokens'])
  with jax.set_mesh(m):
    results.append(jax.device_get(jax.jit(update)(placed, batch)))
assert len(batch['tokens'].sharding.device_set) == 1
# Devices add float32 in another order: 1e-5 is about 100 roundings.
jax.tree.map(lambda a, b: np.testing.assert_allclose(
    a, b, rtol=0, atol=1e-5 * np.abs(b).max()), *results)
try:
  partitioning.shard_batch(mesh, {'tokens': np.zeros((6, 4), np.int32)})
except ValueError as error:
  assert 'a batch of 6 (tokens)' in str(error) and '4 divides' in str(error)
else:
  raise AssertionError
"""


def test_eight_devices_equal_one():
  root = pathlib.Path(partitioning.__file__).parents[1]
  flags = os.environ.get('XLA_FLAGS', '')
  result = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT],
    cwd=root,
    env={
      **os.environ,
      'PYTHONPATH': str(root),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count=8',
    },
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr


def _one():
  return partitioning.make_mesh(devices=jax.devices()[:1])


def test_one_device_is_a_mesh():
  mesh = _one()
  assert mesh.shape == {'data': 1, 'fsdp': 1, 'tensor': 1}
  assert partitioning.batch_sharding(mesh).spec == P(('data', 'fsdp'))


def _specs(params, rules=None, **sizes):
  """Returns the specs of float32 arrays of these shapes, by path."""
  mesh = AbstractMesh(
    tuple({'data': 1, 'fsdp': 1, 'tensor': 1, **sizes}.values()),
    types.MESH_AXES,
  )
  arrays = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in params.items()}
  found = partitioning.params_sharding(mesh, arrays, rules or {})
  return {name: sharding.spec for name, sharding in found.items()}


def test_names_align_with_the_last_axes():
  params = {'q/kernel': (3, 128, 256), 'q/bias': (256,), 'norm/scale': (128,)}
  specs = _specs(params, fsdp=2, tensor=2)
  assert specs['q/kernel'] == P(None, 'fsdp', 'tensor')
  assert specs['q/bias'] == P('tensor')
  assert specs['norm/scale'] == P(None)


def test_a_pair_of_matrices_is_split_by_columns_then_by_rows():
  params = {'wi_0/kernel': (128, 256), 'wo/kernel': (256, 128)}
  specs = _specs(params, tensor=4)
  assert specs['wi_0/kernel'] == P('fsdp', 'tensor')
  assert specs['wo/kernel'] == P('tensor', 'fsdp')


def test_parts_of_a_stored_kernel_are_split_alike():
  params = {
    'q/kernel/values': (128, 256),
    'q/kernel/scale': (1, 256),
    'q/kernel/lora_a': (128, 8),
  }
  specs = _specs(params, fsdp=2, tensor=2)
  assert specs['q/kernel/values'] == P('fsdp', 'tensor')
  assert specs['q/kernel/scale'] == P(None, 'tensor')
  assert specs['q/kernel/lora_a'] == P(None, None)


def test_rules_can_be_changed():
  params = {'shared/embedding': (512, 64), 'q/kernel': (64, 256)}
  changes = {'embed': 'data+fsdp', 'vocab': '', 'heads': ()}
  specs = _specs(params, changes, data=2, fsdp=2, tensor=2)
  assert specs['shared/embedding'] == P(None, ('data', 'fsdp'))
  assert specs['q/kernel'] == P(('data', 'fsdp'), None)


def test_what_does_not_divide_stays_whole_or_is_split_elsewhere():
  params = {'lm_head': (129, 512), 'o/kernel': (127, 255)}
  specs = _specs(params, fsdp=2, tensor=2)
  # 129 isn't even: what splits 'embed' finds no other axis.
  assert specs['lm_head'] == P(None, 'tensor')
  assert specs['o/kernel'] == P(None, None)
  assert _specs({'any': (3, 8192)}, fsdp=2)['any'] == P(None, 'fsdp')


def test_small_arrays_are_not_gathered():
  assert _specs({'any': (64, 128)}, fsdp=2)['any'] == P(None, None)


def test_heads_are_never_cut_in_two():
  mesh = AbstractMesh((1, 1, 4), types.MESH_AXES)
  rules = partitioning.make_rules(
    mesh, {}, SimpleNamespace(heads=12, kv_heads=2)
  )
  assert rules['heads'] == ('tensor',)
  assert rules['kv_heads'] == ()


@pytest.mark.parametrize(
  'changes, named', [({'embed': 'model'}, "'model'"), ({'width': ''}, 'width')]
)
def test_unknown_axes_and_names_are_refused(changes, named):
  with pytest.raises(ValueError, match=f"{named}.*'vocab'.*'tensor'"):
    partitioning.read_rules(changes)


@pytest.mark.parametrize('leaf', [3, [('a', 'b')]])
def test_batches_without_rows_of_numbers_are_refused(leaf):
  with pytest.raises(ValueError, match='references'):
    partitioning.shard_batch(_one(), {'x': leaf})


def test_sizes_must_be_positive():
  with pytest.raises(ValueError, match='fsdp=0'):
    partitioning.make_mesh(fsdp=0)


def test_shard_batch_keeps_values_and_types():
  rows = {'mask': np.array([[True, False]]), 'ids': np.array([7], np.int32)}
  batch = partitioning.shard_batch(_one(), rows)
  for name, value in rows.items():
    np.testing.assert_array_equal(batch[name], value)
    assert batch[name].dtype == value.dtype
