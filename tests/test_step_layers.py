"""Matching layers through the step, for both model families."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, optimizers, recipes, state, step, types

B, S, T, V = 4, 5, 4, 12

SHAPES = {
  't5': lambda width, layers: {
    'model_type': 't5', 'vocab_size': V, 'd_model': width, 'd_kv': 4,
    'd_ff': 16, 'num_heads': 2, 'num_layers': layers,
    'num_decoder_layers': layers, 'dropout_rate': 0.0,
  },
  'gpt2': lambda width, layers: {
    'model_type': 'gpt2', 'vocab_size': V, 'n_embd': width, 'n_layer': layers,
    'n_head': 2, 'n_positions': 16, 'eos_token_id': 1, 'attn_pdrop': 0.0,
    'embd_pdrop': 0.0, 'resid_pdrop': 0.0,
  },
}  # fmt: skip


@functools.cache
def pair(family, scan=False):
  """A student of one layer and a teacher of two, of other widths."""
  made = []
  for seed, sizes in enumerate(((8, 1), (12, 2))):
    made += models.from_config(
      SHAPES[family](*sizes), jax.random.key(seed), scan=scan
    )
  return made


@functools.cache
def batch():
  rng = np.random.default_rng(0)

  def tokens(length):
    lengths = rng.integers(1, length + 1, B)
    mask = np.arange(length) < lengths[:, None]
    return jnp.asarray(rng.integers(2, V, (B, length))), jnp.asarray(mask)

  return types.Batch(
    prompt=types.Prompt(*tokens(S)),
    responses={'data': types.Response(*tokens(T))},
  )


def build(family, scan=False, micro_batch=None, **args):
  student, params, teacher, frozen = pair(family, scan)
  goal = recipes.build('layer_matching', **args)
  both = {'student': (student, params), 'teacher': (teacher, frozen)}
  extra = step.auxiliary(goal, both, jax.random.key(2))
  own = optimizers.OptimizerConfig(learning_rate=3e-2)
  made = step.Program(
    step.Settings(
      student=student,
      teacher=teacher,
      objective=goal,
      optimizer=optimizers.build(own, dict.fromkeys(extra, own)),
      max_new_tokens=T,
      micro_batch=micro_batch,
    )
  )
  fresh = {'student': params, **extra}
  current = state.create(
    jax.tree.map(jnp.array, fresh), made.settings.optimizer, 0
  )
  return made, current, {'teacher': frozen}


ALONE = {'kd_weight': 0.0, 'sft_weight': 0.0, 'weight': 1.0}


@pytest.mark.parametrize(
  'family, args',
  [
    ('t5', {'stacks': ('encoder', 'decoder'), 'strategy': 'forward'}),
    ('t5', {'kind': 'cross_attention', 'strategy': 'last'}),
    ('gpt2', {'strategy': 'all_to_one', 'target_layer': 0, 'mean': True}),
    ('gpt2', {'kind': 'attention', 'strategy': 'reverse', 'distance': 'kl'}),
  ],
)
def test_layers_come_to_match(family, args):
  made, current, frozen = build(family, **ALONE, **args)
  losses = []
  for _ in range(25):
    current, metrics = made.update(current, frozen, batch(), 0)
    losses.append(float(metrics['loss'][0]))
  assert losses[-1] < 0.7 * losses[0]
  assert current.skipped == 0


def test_projections_are_made_where_widths_differ():
  _, current, _ = build('t5', **ALONE, strategy='forward')
  (projection,) = jax.tree.leaves(current.params['hidden_decoder'])
  assert projection.shape == (8, 12)
  _, current, _ = build('t5', **ALONE, kind='attention', strategy='last')
  assert set(current.params) == {'student'}


def test_a_discriminator_learns_while_the_student_fools_it():
  made, current, frozen = build(
    'gpt2', **ALONE, kind='adversarial', strategy='last', width=6
  )
  before = jax.device_get(current.params)
  current, metrics = made.update(current, frozen, batch(), 0)
  assert np.isfinite(metrics['loss'][0])
  own = current.params['adversarial_decoder']['layer_0']
  assert own['discriminator']['hidden']['kernel'].shape == (12, 6)
  changed = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), jax.device_get(current.params), before
  )
  assert changed['adversarial_decoder']['layer_0']['projection']
  assert changed['adversarial_decoder']['layer_0']['discriminator']['output'][
    'kernel'
  ]
  assert any(jax.tree.leaves(changed['student']))


@pytest.mark.slow
def test_scanned_layers_and_micro_batches_change_nothing():
  results = []
  for scan, size in ((False, None), (True, 2)):
    made, current, frozen = build(
      'gpt2', scan=scan, micro_batch=size, kind='cosine', strategy='weighted'
    )
    results.append(made.update(current, frozen, batch(), 0)[1])
  for name in ('loss', 'loss/cosine_decoder'):
    np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-5)


def test_unequal_depths_need_a_strategy():
  with pytest.raises(ValueError, match='1 layers and the teacher 2: set loss_'):
    build('t5', **ALONE, strategy='')
  with pytest.raises(ValueError, match="stack='encoder': the model has"):
    build('gpt2', **ALONE, strategy='last', stacks=('encoder',))
