"""One GKD update on 8 simulated devices equals the one on a single device."""

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


def test_an_update_on_eight_devices_equals_one():
  root = pathlib.Path(kdjax.__file__).parents[1]
  result = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT],
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
