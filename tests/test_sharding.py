"""Updates and losses on 8 simulated devices equal those on a single one."""

import os
import pathlib
import subprocess
import sys

import kdjax

# The devices must be asked for before jax starts.
_ON_EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from kdjax import models, optimizers, partitioning, recipes, state, step, types

T5 = dict(model_type='t5', vocab_size=32, d_kv=8, num_heads=2, d_ff=256,
          feed_forward_proj='gated-gelu', tie_word_embeddings=False,
          dropout_rate=0.0)
student, params = models.from_config(
    {**T5, 'd_model': 64, 'num_layers': 1, 'num_decoder_layers': 1},
    jax.random.key(0))
teacher, teacher_params = models.from_config(
    {**T5, 'd_model': 16, 'num_layers': 1, 'num_decoder_layers': 1},
    jax.random.key(1))
params, teacher_params = jax.device_get((params, teacher_params))

B, S, T = 16, 6, 5
rng = np.random.default_rng(0)
def tokens(length):
  lengths = rng.integers(1, length + 1, B)
  mask = np.arange(length) < lengths[:, None]
  return np.where(mask, rng.integers(2, 32, (B, length)), 0), mask
batch = types.Batch(
    prompt=types.Prompt(*tokens(S)),
    responses={'data': types.Response(*tokens(T))},
    example_id=np.arange(B, dtype=np.int32))

compiled, flops = [], []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: 'backend_compile' in name and compiled.append(name))

goal = recipes.build('gkd', lam=0.5, beta=0.5)
optimizer = optimizers.build(optimizers.OptimizerConfig(
    name='sgd', learning_rate=1.0, momentum=0.9))
results = []
for sizes, devices, micro in (
    ({}, jax.devices()[:1], None),
    ({'fsdp': 2, 'tensor': 2}, None, 4),
):
  mesh = partitioning.make_mesh(devices=devices, **sizes)
  program = step.Program(step.Settings(
      student=student, teacher=teacher, objective=goal, optimizer=optimizer,
      max_new_tokens=T, micro_batch=micro))
  with jax.set_mesh(mesh):
    place = lambda tree: jax.device_put(
        tree, partitioning.params_sharding(mesh, tree))
    current = place(state.create({'student': params}, optimizer, 0))
    frozen = {'teacher': place(teacher_params)}
    rows = partitioning.shard_batch(mesh, batch)
    before = jax.tree.map(lambda x: x.sharding, current)
    views, _ = program.rollout(current, frozen, rows, B // 2)
    current, _ = program.update(current, frozen, rows, B // 2)
    compiled.clear()
    current, metrics = program.update(current, frozen, rows, B // 2)
    assert not compiled, compiled
    after = jax.tree.map(lambda x: x.sharding, current)
    jax.tree.map(
        lambda a, b, x: np.testing.assert_(a.is_equivalent_to(b, x.ndim)),
        before, after, current)
    # Every device decodes and learns its share of the rows, not all.
    assert views[0].tokens.sharding.is_equivalent_to(
        partitioning.batch_sharding(mesh), 2)
    cost = program._rollout.lower(
        current.params['student'], None, rows, current.step, current.key,
        rows=B // 2)
    flops.append(cost.compile().cost_analysis()['flops'])
  results.append(jax.device_get((views, current.params, metrics)))

assert flops[1] < flops[0] / 6, flops
assert len({str(x.sharding) for x in jax.tree.leaves(current.params)}) > 2
changed = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), results[0][1]['student'], params)
assert min(jax.tree.leaves(changed)) > 1e-4, changed
for other in results[1:]:
  jax.tree.map(np.testing.assert_array_equal, other[0], results[0][0])
  # Devices add float32 in another order: 1e-5 is about 100 roundings.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=1e-5 * np.abs(b).max()), other[1:], results[0][1:])
"""


_CHUNKED_ON_EIGHT = r"""
import re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from kdjax import losses, partitioning, types

# No two sizes are alike, nor their halves and quarters.
T, D, V, CHUNK = 6, 8, 40, 3
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
              labels=rng.integers(0, V, (B, T)))
  return floats, rest

def weighted(floats, rest):
  return losses.chunked(
      losses.forward_kl, floats['hidden'],
      types.Head(floats['kernel'], floats['bias']), rest['teacher'],
      types.Head(rest['teacher_kernel']), weights=rest['weights'],
      mask=rest['mask'], args={'temperature': floats['temperature']},
      chunk_size=CHUNK, batch_axes=ROWS)

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
    spec = SPECS.get(path[-1].key, rows)
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
check(weighted, uneven, sizes, 1e-5, sharded=False)
# Gradients are rounded to bfloat16, those of the head once a chunk.
check(valued, even, sizes, 2**-7)
"""


def on_eight_devices(code):
  """Runs code in a process of its own."""
  root = pathlib.Path(kdjax.__file__).parents[1]
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=root,
    env={
      **os.environ,
      'PYTHONPATH': str(root),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
    },
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr[-4000:]


def test_an_update_on_eight_devices_equals_one():
  on_eight_devices(_ON_EIGHT)


def test_chunked_losses_on_eight_devices_equal_those_on_one():
  on_eight_devices(_CHUNKED_ON_EIGHT)
