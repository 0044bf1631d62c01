"""A step of a LoRA student: only factors move, and only they are paid for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, optimizers, recipes, state, step, types
from kdjax.models import kernels, lora

CONFIG = {
  'model_type': 'llama',
  'vocab_size': 20,
  'hidden_size': 16,
  'intermediate_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'pad_token_id': 0,
  'bos_token_id': 1,
  'eos_token_id': 2,
}
ADAM = optimizers.OptimizerConfig(
  learning_rate=0.03,
  weight_decay=0.1,
  trainable=lora.trainable(None),
)


def batch():
  rng = np.random.default_rng(0)
  tokens = lambda n: jnp.asarray(rng.integers(3, 20, (4, n)), jnp.int32)
  prompt = types.Prompt(tokens(3), jnp.ones((4, 3), bool))
  gold = types.Response(tokens(5), jnp.ones((4, 5), bool))
  return types.Batch(prompt, responses={'data': gold})


def program(student, teacher, **options):
  return step.Program(
    step.Settings(
      student=student,
      teacher=teacher,
      objective=recipes.build('supervised_kd', divergence='forward_kl'),
      optimizer=optimizers.build(ADAM),
      moves=optimizers.moves(ADAM),
      max_new_tokens=5,
      measure_every=1,
      **options,
    )
  )


@pytest.mark.parametrize(
  'weights', ['int8', pytest.param('float32', marks=pytest.mark.slow)]
)
def test_only_factors_move_and_only_they_are_paid_for(weights):
  teacher, judge = models.from_config(CONFIG, jax.random.key(0))
  student, params = models.from_config(
    CONFIG, jax.random.key(1), weights=weights, scan=True, remat=True
  )
  params = models.add_lora(params, jax.random.key(2), rank=4, alpha=8)
  optimizer = optimizers.build(ADAM)
  start = state.create({'student': params}, optimizer, seed=0)
  factors = 2 * 2 * 2 * 4 * 16  # layers, q and v, a and b, R x D
  held = sum(x.size for x in jax.tree.leaves(start.opt_state) if x.ndim)
  assert held == 2 * factors
  before = jax.tree.map(np.array, params)
  run, current, losses = program(student, teacher), start, []
  for _ in range(20):
    current, found = run.update(current, {'teacher': judge}, batch(), 0)
    losses.append(float(found['loss'][0]))
  assert losses[-1] < 0.9 * losses[0]
  after = current.params['student']
  jax.tree.map(
    np.testing.assert_array_equal, kernels.base(after), kernels.base(before)
  )
  kernel = after['decoder']['layers']['attention']['q']['kernel']
  assert np.abs(kernel.lora_b).min(axis=(1, 2)).max() > 0


@pytest.mark.slow  # three compiled steps
def test_the_update_is_that_of_differentiating_everything():
  """In micro-batches or not: the base's gradients would change nothing."""
  teacher, judge = models.from_config(CONFIG, jax.random.key(0))
  student, params = models.from_config(CONFIG, jax.random.key(1))
  params = models.add_lora(params, jax.random.key(2), rank=4)
  found = []
  for options in ({}, {'micro_batch': 2}, {'moves': lambda path: True}):
    settings = dataclasses.replace(
      program(student, teacher).settings, **options
    )
    start = state.create(
      {'student': jax.tree.map(jnp.copy, params)}, settings.optimizer, seed=0
    )
    run = step.Program(settings)
    current, _ = run.update(start, {'teacher': judge}, batch(), 0)
    found.append(current.params)
  for other in found[1:]:
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
      found[0],
      other,
    )
