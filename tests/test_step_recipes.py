"""Every recipe: neither order, padding nor micro-batches change an update."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import recipes, rewards, state, step
from tests.step_cases import (
  B,
  assert_same,
  batch,
  frozen,
  models,
  response,
  settings,
)

LENGTH = rewards.Traced(lambda prompt, response: response.mask.sum(-1) * 1.0)
GROUPS = {'sampling': {'samples_per_prompt': 2}}
STALE = {'behaviour_sync': 3}

# Arguments of the recipe, then settings of the step, where there are some.
CASES = {
  'sft': {},
  'word_kd': {'kd_weight': 0.5, 'temperature': 2.0},
  'seqkd': {},
  'self_training': {},
  'akl': {},
  'imitkd': {'lam': 1.0},
  'supervised_kd': {},
  'on_policy_kd': {},
  'gkd': {'lam': 1.0, 'beta': 0.9},
  'distillm': {'student': 1.0, 'replay': 0.0},
  'engine': {'form': 'straight_through'},
  'f_distill js': {'skew': 0.85},
  'f_distill exact': {'mixture': 'exact'},
  'minillm': ({}, {'teacher_mix': 0.2}),
  'gkd_rl': {'reward': 'length'},
  'grpo': ({'reward': 'length'}, GROUPS),
  'reinforce': {'reward': 'length', 'kl_weight': 0.1},
  'llmr': ({'scale': 1.0}, STALE),
  'llmr sparse': {'sparse': True, 'entropy': 'shannon'},
  'self_distillation': {},
  'reward_regression': {'reward': 'length'},
  'preference_reward': {},
  'dpkd': {},
  'dpkd simpo': {'form': 'simpo'},
  'dpkd_token': {'lm_task': 'corpus'},
  'dpo': {'label_smoothing': 0.1},
  'ranking': ({'form': 'hinge', 'length_normalized': True}, GROUPS),
  'terms': {'terms': [{'loss': 'total_variation', 'source': 'student'}]},
}


# Most kinds of sources and losses once; CI runs the others, too.
QUICK = {
  'sft',
  'gkd',
  'minillm',
  'llmr',
  'preference_reward',
  'dpkd',
  'ranking',
}


def test_every_recipe_without_layers_is_tested_here():
  tested = {name.split()[0] for name in CASES}
  layers = {'pre_distillation', 'layer_matching'}
  assert tested == set(recipes.RECIPES) - layers


def program(name, **more):
  args = CASES[name]
  args, options = args if isinstance(args, tuple) else (args, {})
  goal = recipes.build(name.split()[0], **args)
  options = {'rewards': {'length': LENGTH}, **options, **more}
  if 'reward' in goal.models():
    options['reward_model'] = models()[0]
  return step.Program(settings(goal, **options))


@functools.cache
def rows():
  """A batch with pairs, and other tasks' batches inside."""
  main = dataclasses.replace(
    batch(), responses={**batch().responses, 'rejected': response(5)}
  )
  other = jax.tree.map(lambda x: jnp.roll(x, 1, 0), main)
  return dataclasses.replace(main, tasks={'corpus': other, 'unlabelled': other})


def begin(made):
  """A fresh state, and what is frozen."""
  both = {'student': models()[:2], 'teacher': models()[2:]}
  own = step.auxiliary(made.settings.objective, both, jax.random.key(0))
  current = state.create(
    {'student': jax.tree.map(jnp.array, models()[1]), **own},
    made.settings.optimizer,
    0,
    stale=made.settings.behaviour_sync > 0,
  )
  # Another model than the student: the same one has no preference.
  return current, {**frozen(), 'reference': models()[0].init(jax.random.key(9))}


def update(made, rows, **options):
  current, known = begin(made)
  after, metrics = made.update(current, known, rows, B, **options)
  return after.params, {k: v for k, v in metrics.items() if k != 'tokens'}


def padded(rows):
  """Two more columns of padding, with tokens that must not matter."""

  def widen(part):
    tokens = jnp.pad(part.tokens, ((0, 0), (0, 2)), constant_values=3)
    mask = jnp.pad(part.mask, ((0, 0), (0, 2)))
    return type(part)(tokens, mask)

  return dataclasses.replace(
    rows,
    prompt=widen(rows.prompt),
    responses={name: widen(r) for name, r in rows.responses.items()},
    tasks={name: padded(part) for name, part in rows.tasks.items()},
  )


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in CASES
  ],
)
def test_order_padding_and_micro_batches_change_nothing(name):
  made = program(name)
  # Phase by phase here, and where it can be, as one program below.
  params, metrics = update(made, rows(), around=lambda phase, run: run())
  assert np.isfinite(metrics['loss'][0])
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), params['student'], models()[1]
  )
  assert max(jax.tree.leaves(moved)) > 1e-4
  order = np.random.default_rng(1).permutation(B)
  other = padded(jax.tree.map(lambda x: x[order], rows()))
  # Sums of about a hundred numbers in another order; whitened ones near 0.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5),
    update(program(name, micro_batch=2), other),
    (params, metrics),
  )
  assert_nothing_moves_nothing(made)


def assert_nothing_moves_nothing(made):
  """Responses without a token have no loss, no gradient and no NaN."""
  current, known = begin(made)
  responses, _ = made.rollout(current, known, rows(), B)
  nothing = jax.tree.map(jnp.zeros_like, responses)
  scored, _ = made.score(current, known, rows(), nothing)
  after, metrics = made.learn(current, known, scored)
  assert metrics['loss'][0] == 0
  assert after.skipped == 0
  assert_same(after.params['student'], models()[1])
