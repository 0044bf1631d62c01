"""Ten steps of GKD and replays on meshes, and on one device: FILE t5 2,2,2 ...

Run on 8 simulated devices, in a process of its own (see tests/test_sharding).
"""

import dataclasses
import math
import re
import sys

import jax
import numpy as np

from kdjax import (
  models,
  objective,
  optimizers,
  partitioning,
  recipes,
  state,
  step,
  types,
)

# V is the size of nothing else, nor are its parts; the last 4 rows are padding.
B, S, T, V, D = 16, 6, 5, 88, 32
# Of 8 a step, and no multiple of 16 rows.
KEPT = 24
_COMPILED = []
CONFIGS = {
  't5': {
    'model_type': 't5',
    'd_kv': 8,
    'num_heads': 4,
    'd_ff': 64,
    'num_layers': 1,
    'feed_forward_proj': 'gated-gelu',
    'tie_word_embeddings': False,
    'widths': 'd_model',
  },
  # Two key-value heads, which four devices can't share.
  'llama': {
    'model_type': 'llama',
    'head_dim': 8,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'intermediate_size': 64,
    'num_hidden_layers': 1,
    'rms_norm_eps': 1e-6,
    'tie_word_embeddings': True,
    'bos_token_id': 0,
    'eos_token_id': 1,
    'widths': 'hidden_size',
  },
}


def make(family, width, seed):
  config = {**CONFIGS[family], 'vocab_size': V}
  config[config.pop('widths')] = width
  model, params = models.from_config(
    config, jax.random.key(seed), dropout=0.0, num_tokens=V - 4
  )
  return model, jax.device_get(params)


def batch():
  rng = np.random.default_rng(0)

  def tokens(length):
    mask = np.arange(length) < rng.integers(1, length + 1, (B, 1))
    return np.where(mask, rng.integers(2, V - 4, (B, length)), 0), mask

  return types.Batch(
    prompt=types.Prompt(*tokens(S)),
    responses={'data': types.Response(*tokens(T))},
    example_id=np.arange(B, dtype=np.int32),
  )


def run(mesh, student, teacher, optimizer):
  """Returns what came of ten steps, the last state, and what samples."""
  gkd = recipes.build('gkd', lam=0.5, beta=0.5)
  earlier = objective.Term('earlier', 'forward_kl', 'replay')
  gathered = partitioning.params_sharding(mesh, student[1], {'embed': ''})
  program = step.Program(
    step.Settings(
      student=student[0],
      teacher=teacher[0],
      objective=objective.Objective((*gkd.terms, earlier)),
      optimizer=optimizer,
      max_new_tokens=T,
      sampling={'gather': gathered},
      micro_batch=8,
    )
  )

  def place(model, tree):
    rules = partitioning.make_rules(mesh, partitioning.RULES, model.config)
    return partitioning.place(mesh, tree, rules)

  with jax.set_mesh(mesh):
    current = state.create({'student': student[1]}, optimizer, 0)
    memory = step.memory(KEPT, batch(), T)
    current = dataclasses.replace(
      place(student[0], current),
      replay=(partitioning.place(mesh, memory, {'embed': ''}),),
    )
    frozen = {'teacher': place(teacher[0], teacher[1])}
    rows = partitioning.shard_batch(mesh, batch())
    sampled, _ = program.rollout(current, frozen, rows, B // 2)
    # Every device has its share of the rows.
    assert sampled[0].tokens.sharding.is_equivalent_to(
      partitioning.batch_sharding(mesh), 2
    )
    found = {'sampled': jax.device_get(sampled[0])}
    before = jax.tree.map(lambda x: x.sharding, current)
    for i in range(10):
      current, metrics = program.update(current, frozen, rows, B // 2)
      if i in (0, 9):
        name = 'last' if i else 'first'
        found[name] = jax.device_get((current.params['student'], metrics))
      if not i:
        _COMPILED.clear()
    assert not _COMPILED, 'a later step was compiled anew'
    found['kept'] = jax.device_get(current.replay)
    same = jax.tree.map(
      lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim),
      current,
      before,
    )
    assert all(jax.tree.leaves(same)), same
    numbers = program.settings.numbers()
    given = current.params['student'], None, rows, current.step, current.key
    rollout = program._rollout.lower(numbers, *given, rows=B // 2).compile()
  return found, current, rollout


def check_memory(current, mesh):
  """Each device holds its part of parameters and moments, and no more."""
  parts = mesh.shape['fsdp'] * mesh.shape['tensor']
  trees = current.params, current.opt_state
  for leaves in map(jax.tree.leaves, trees):
    whole = sum(x.nbytes for x in leaves)
    local = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    # Norms and, of two key-value heads for four devices, keys and values.
    assert local < 1.35 * whole / parts, (mesh.shape, local, whole)


def check_sampling(rollout):
  """No device is sent the logits of all words for the rows that it has."""
  gathered = re.findall(r'= (\S+) all-gather\(', rollout.as_text())
  shapes = [re.findall(r'\[([0-9,]+)\]', each) for each in gathered]
  for shape in (x for each in shapes for x in each):
    sizes = [int(size) for size in shape.split(',')]
    # A table [V, D] is gathered where fsdp splits it.
    assert not {V, V - 4} & set(sizes) or D in sizes, gathered


def check_close(found, expected, atol, where):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=atol * np.abs(b).max(), err_msg=where
    ),
    found,
    expected,
  )


def main(family, *meshes):
  partitioning.MIN_SIZE = 64  # or nothing here were split
  student, teacher = make(family, D, 0), make(family, 16, 1)
  # The update is the gradient times 0.1: no second moment hides an error.
  sgd = optimizers.build(
    optimizers.OptimizerConfig(
      name='sgd', learning_rate=0.1, momentum=0.9, clip_norm=None
    )
  )
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: 'backend_compile' in name and _COMPILED.append(name)
  )
  one = partitioning.make_mesh(devices=jax.devices()[:1])
  expected, _, alone = run(one, student, teacher, sgd)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), expected['first'][0], student[1]
  )
  assert min(jax.tree.leaves(moved)) > 1e-8, moved
  for where in meshes:
    sizes = tuple(map(int, where.split(',')))
    mesh = partitioning.make_mesh(
      *sizes, devices=jax.devices()[: math.prod(sizes)]
    )
    found, current, rollout = run(mesh, student, teacher, sgd)
    for name in ('sampled', 'kept'):
      check_close(found[name], expected[name], 0, where)
    # Devices add float32 in another order: 1e-5 is about 100 roundings, of
    # which ten steps make ten times as many.
    check_close(found['first'], expected['first'], 1e-5, where)
    check_close(found['last'], expected['last'], 1e-4, where)
    check_memory(current, mesh)
    check_sampling(rollout)
    work = [each.cost_analysis()['flops'] for each in (rollout, alone)]
    assert work[0] < 1.4 * work[1] / mesh.size, (where, work)


if __name__ == '__main__':
  main(*sys.argv[1:])
