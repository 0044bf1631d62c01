"""Steps and losses on 8 simulated devices equal those on a single one."""

import os
import pathlib
import subprocess
import sys

import pytest

import kdjax

_CHUNKED_ON_EIGHT = r"""
import re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from kdjax import losses, partitioning, types

# No two sizes are alike, nor their halves and quarters.
T, D, V, CHUNK, K = 6, 8, 40, 3, 5
ROWS = ('data', 'fsdp')
SPECS = {'kernel': PartitionSpec('fsdp', 'tensor'),
         'teacher_kernel': PartitionSpec('fsdp', 'tensor'),
         'bias': PartitionSpec('tensor')}
rng = np.random.default_rng(0)
normal = lambda *shape: rng.normal(size=shape).astype(np.float32)

def problem(B):
  mask = rng.random((B, T)) < 0.6
  mask[:2] = False  # All that the first of 8 devices has.
  floats = dict(hidden=normal(B, T, D), kernel=normal(D, V), bias=normal(V),
                temperature=rng.uniform(0.5, 2, (B, T)).astype(np.float32))
  rest = dict(teacher=normal(B, T, D), teacher_kernel=normal(D, V),
              weights=normal(B, T), mask=mask,
              labels=rng.integers(0, V, (B, T)),
              top=losses.top_k(normal(B, T, V), K))
  return floats, jax.device_get(rest)

def weighted(floats, rest):
  return losses.chunked(
      losses.forward_kl, floats['hidden'],
      types.Head(floats['kernel'], floats['bias']), rest['teacher'],
      types.Head(rest['teacher_kernel']), weights=rest['weights'],
      mask=rest['mask'], args={'temperature': floats['temperature']},
      chunk_size=CHUNK, batch_axes=ROWS)

def known(floats, rest):
  return losses.chunked(
      losses.forward_kl, floats['hidden'],
      types.Head(floats['kernel'], floats['bias']), rest['top'],
      weights=rest['weights'], mask=rest['mask'], chunk_size=CHUNK,
      batch_axes=ROWS)

def valued(floats, rest):
  half = jnp.bfloat16
  head = types.Head(floats['kernel'].astype(half), floats['bias'])
  model = floats['hidden'].astype(half), head
  given = dict(labels=rest['labels'], mask=rest['mask'], chunk_size=CHUNK,
               batch_axes=ROWS)
  values = losses.chunked_values(losses.cross_entropy, *model, **given)
  statistics = losses.token_statistics(*model, **given)
  return jnp.sin(values.sum(-1)).sum(), (values, statistics)

def check(function, inputs, sizes, atol, sharded=True):
  gradients = jax.value_and_grad(function, has_aux=True)
  expected = jax.device_get(jax.jit(gradients)(*inputs))
  count = int(np.prod(list(sizes.values())))
  mesh = partitioning.make_mesh(devices=jax.devices()[:count], **sizes)
  rows = PartitionSpec(ROWS) if sharded else PartitionSpec()
  def place(path, x):
    spec = SPECS.get(getattr(path[-1], 'key', ''), rows)
    return jax.device_put(x, NamedSharding(mesh, spec))
  with jax.set_mesh(mesh):
    placed = jax.tree_util.tree_map_with_path(place, inputs)
    compiled = jax.jit(gradients).lower(*placed).compile()
    found = jax.device_get(compiled(*placed))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=atol * np.abs(b).max(), err_msg=str(sizes)),
      found, expected)
  if not sharded:
    return
  # What devices tell each other holds no logits: the vocabulary stands only
  # beside D, in kernels and their gradients, or alone, in biases.
  words, widths = {V, V // 2, V // 4}, {D, D // 2, 1}
  collectives = re.findall(
      r'= (.*) (?:all-|reduce-s|collective-)[a-z-]+\(', compiled.as_text())
  assert collectives
  for shape in re.findall(r'\[([0-9,]+)\]', ' '.join(collectives)):
    shape = {int(size) for size in shape.split(',')}
    assert not shape & words or shape <= words | widths, collectives

# Devices add float32 in another order: 1e-5 is about 100 roundings.
even, uneven = problem(16), problem(3)
for data, fsdp, tensor in (8, 1, 1), (1, 8, 1), (1, 1, 4), (2, 2, 2):
  sizes = dict(data=data, fsdp=fsdp, tensor=tensor)
  check(weighted, even, sizes, 1e-5)
  check(known, even, sizes, 1e-5)
check(weighted, uneven, sizes, 1e-5, sharded=False)
# Gradients are rounded to bfloat16, those of the head once a chunk.
check(valued, even, sizes, 2**-7)
"""


_MEMORY_ON_EIGHT = """
import runpy, sys
import jax
from kdjax import build, checks, partitioning

partitioning.MIN_SIZE = 64  # or nothing here were split
c = runpy.run_path('tests/tiny.py')['get_config'](sys.argv[1])
c.optimizer.name = 'adamw'
c.recipe, c.replay_size = {'name': 'distillm'}, 16
c.teacher.sharding = {'embed': 'data+fsdp'}

def part(tree):
  leaves = jax.tree.leaves(tree)
  local = sum(x.addressable_shards[0].data.nbytes for x in leaves)
  return local / sum(x.nbytes for x in leaves)

for sizes in {'data': 1, 'fsdp': 8}, {'data': 8, 'fsdp': 1}:
  c.mesh.update(sizes)
  run = build.build(checks.validate(c))
  state = run.initial_state()
  adam = state.opt_state.inner_states['main'].inner_state[1][0]
  student = [part(tree) for tree in (state.params, adam.mu, adam.nu)]
  # Scales of norms, of 16 elements, are whole everywhere.
  low, high = (1 / 8, 1.2 / 8) if sizes['fsdp'] == 8 else (1, 1)
  assert all(low <= each <= high for each in student), (sizes, student)
  assert part(state.replay) == 1, sizes
  # A teacher may be split where the student isn't.
  assert part(run.teacher_params) <= 1.2 / 8, sizes
"""


def on_eight_devices(*command):
  """Runs Python on 8 simulated devices, in a process of its own."""
  root = pathlib.Path(kdjax.__file__).parents[1]
  flags = os.environ.get('XLA_FLAGS', '')
  result = subprocess.run(
    [sys.executable, *command],
    cwd=root,
    env={
      **os.environ,
      'PYTHONPATH': str(root),
      'JAX_PLATFORMS': 'cpu',
      # Devices must be asked for before jax starts.
      'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count=8',
    },
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr[-4000:]


def test_ten_steps_on_eight_devices_equal_those_on_one():
  on_eight_devices('tests/sharded/ten_steps.py', 't5', '2,2,2')


@pytest.mark.slow
@pytest.mark.parametrize('family', ['t5', 'llama'])
def test_ten_steps_on_every_mesh_equal_those_on_one_device(family):
  meshes = '8,1,1', '1,8,1', '1,1,4', '2,2,2'
  on_eight_devices('tests/sharded/ten_steps.py', family, *meshes)


def test_chunked_losses_on_eight_devices_equal_those_on_one():
  on_eight_devices('-c', _CHUNKED_ON_EIGHT)


def test_devices_hold_their_part_of_parameters_and_moments(tiny_data):
  on_eight_devices('-c', _MEMORY_ON_EIGHT, str(tiny_data))
