"""Schedules by hand, exact clipping, frozen parameters that don't move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import optimizers

Config = optimizers.OptimizerConfig


def _params():
  keys = jax.random.split(jax.random.key(0), 3)
  return {
    'student': {
      'dense': {
        'kernel': jax.random.normal(keys[0], (6, 8)),
        'bias': jnp.ones(8),
      },
      'norm': {'scale': jnp.ones(6)},
    },
    'projection': {'kernel': jax.random.normal(keys[1], (8, 3))},
  }


def _grads(params, size=1.0):
  keys = iter(jax.random.split(jax.random.key(1), 9))
  return jax.tree.map(
    lambda x: size * jax.random.normal(next(keys), x.shape), params
  )


def _updates(config, params, grads, **kwargs):
  optimizer = optimizers.build(config, **kwargs)
  return optimizer.update(grads, optimizer.init(params), params)[0]


@pytest.mark.parametrize(
  'spec, expected',
  [
    (0.5, [0.5, 0.5, 0.5, 0.5, 0.5]),
    ({'kind': 'constant', 'start': 2}, [2, 2, 2, 2, 2]),
    (
      {'kind': 'linear', 'start': 1, 'end': 0, 'steps': 4},
      [1, 0.75, 0.5, 0, 0],
    ),
    (
      {'kind': 'linear', 'start': 1, 'end': 3, 'steps': 2, 'begin': 1},
      [1, 1, 2, 3, 3],
    ),
    (
      {'kind': 'cosine', 'start': 0, 'end': 2, 'steps': 4},
      [0, 1 - 0.5**0.5, 1, 2, 2],
    ),
    (
      {'kind': 'exponential', 'start': 1, 'end': 1 / 16, 'steps': 4},
      [1, 0.5, 0.25, 1 / 16, 1 / 16],
    ),
  ],
)
def test_schedule_by_hand(spec, expected):
  function = optimizers.schedule(spec)
  values = [function(step) for step in (0, 1, 2, 4, 100)]
  np.testing.assert_allclose(values, expected, atol=1e-6)
  traced = jax.jit(lambda step: jnp.asarray(function(step)))
  np.testing.assert_allclose(
    [traced(step) for step in (0, 1, 2, 4, 100)], values, atol=1e-6
  )


def test_constants_are_known():
  assert optimizers.is_constant(0)
  assert optimizers.is_constant({'kind': 'constant', 'start': 1.0})
  assert not optimizers.is_constant(
    {'kind': 'linear', 'start': 0, 'end': 1, 'steps': 2}
  )


@pytest.mark.parametrize(
  'spec, message',
  [
    ('linear', 'a number or a mapping'),
    ({'kind': 'cubic', 'start': 0}, "one of .*'exponential', 'linear'"),
    (
      {'kind': 'linear', 'start': 0, 'stop': 1},
      r"missing keys \['end', 'steps",
    ),
    ({'kind': 'linear', 'start': 0, 'end': 1, 'steps': 0}, 'must be positive'),
    ({'kind': 'exponential', 'start': 0, 'end': 1, 'steps': 2}, 'not zero'),
  ],
)
def test_bad_schedules_are_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    optimizers.schedule(spec)


@pytest.mark.parametrize(
  'schedule, expected',
  [
    ('constant', [0, 0.5, 1, 1, 1, 1]),
    ('linear', [0, 0.5, 1, 0.55, 0.1, 0.1]),
    ('cosine', [0, 0.5, 1, 0.55, 0.1, 0.1]),
    ('rsqrt', [0, 0.5, 1, 4**-0.5, 7**-0.5, 50**-0.5]),
  ],
)
def test_learning_rate_by_hand(schedule, expected):
  config = Config(
    learning_rate=1.0,
    schedule=schedule,
    warmup_steps=2,
    total_steps=14,
    final_fraction=0.1,
  )
  rate = optimizers.learning_rate(config)
  values = [rate(step) for step in (0, 1, 2, 8, 14, 100)]
  np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_rate_without_warmup_starts_at_the_peak():
  for schedule in ('constant', 'linear', 'cosine', 'rsqrt'):
    config = Config(learning_rate=0.25, schedule=schedule, total_steps=9)
    assert optimizers.learning_rate(config)(0) == 0.25


def test_clipping_is_exact():
  params = _params()
  config = Config(name='sgd', learning_rate=1.0, clip_norm=0.5)
  large, small = _grads(params), _grads(params, 1e-3)
  norm = optax.tree.norm(large)
  assert norm > 0.5 > optax.tree.norm(small)
  jax.tree.map(
    lambda u, g: np.testing.assert_allclose(u, -g * 0.5 / norm, rtol=1e-6),
    _updates(config, params, large),
    large,
  )
  jax.tree.map(
    lambda u, g: np.testing.assert_array_equal(u, -g),
    _updates(config, params, small),
    small,
  )


def test_frozen_parameters_neither_move_nor_clip():
  params = _params()
  grads = _grads(params)
  config = Config(
    name='sgd', learning_rate=1.0, clip_norm=0.5, trainable=r'dense/kernel'
  )
  updates = _updates(config, params, grads)
  kernel = grads['student']['dense'].pop('kernel')
  moved = updates['student']['dense'].pop('kernel')
  np.testing.assert_allclose(
    moved, -kernel * 0.5 / jnp.linalg.norm(kernel), rtol=1e-6
  )
  assert optax.tree.norm(updates) == 0
  state = optimizers.build(
    Config(trainable=r'dense/kernel'),
  ).init(params)
  sizes = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
  assert sizes == [(6, 8), (6, 8)]


@pytest.mark.parametrize('name', ['adafactor', 'adamw', 'sgd'])
def test_weight_decay_spares_norms_and_biases(name):
  params = _params()
  grads = _grads(params)
  common = {'name': name, 'learning_rate': 0.1, 'clip_norm': None}
  plain = _updates(Config(**common), params, grads)
  decayed = _updates(Config(**common, weight_decay=0.5), params, grads)
  change = jax.tree.map(jnp.subtract, decayed, plain)['student']
  np.testing.assert_allclose(
    change['dense']['kernel'],
    -0.1 * 0.5 * params['student']['dense']['kernel'],
    atol=1e-6,
  )
  assert not change['dense']['bias'].any()
  assert not change['norm']['scale'].any()


@pytest.mark.parametrize('name', ['adafactor', 'adamw', 'sgd'])
def test_weight_decay_is_decoupled(name):
  params = _params()
  config = Config(
    name=name,
    learning_rate=0.1,
    weight_decay=0.1,
    momentum=0.9,
    multiply_by_parameter_scale=False,
  )
  optimizer = optimizers.build(config)
  state, zeros = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
  before = params['student']['dense']['kernel']
  for _ in range(10):
    updates, state = optimizer.update(zeros, state, params)
    params = optax.apply_updates(params, updates)
  after = params['student']['dense']['kernel']
  np.testing.assert_allclose(after, 0.99**10 * before, rtol=1e-5)


def test_adafactor_is_optax_s():
  params = _params()
  reference = optax.adafactor(0.01, min_dim_size_to_factor=4)
  config = Config(
    name='adafactor',
    learning_rate=0.01,
    clip_norm=None,
    min_dim_size_to_factor=4,
  )
  optimizer = optimizers.build(config)
  ours, theirs = params, params
  our_state, their_state = optimizer.init(params), reference.init(params)
  for _ in range(3):
    updates, our_state = optimizer.update(_grads(ours), our_state, ours)
    ours = optax.apply_updates(ours, updates)
    updates, their_state = reference.update(_grads(theirs), their_state, theirs)
    theirs = optax.apply_updates(theirs, updates)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  # Factored second moments: no [6, 8] array is kept.
  assert (6, 8) not in [leaf.shape for leaf in jax.tree.leaves(our_state)]


def test_adamw_is_optax_s():
  params, grads = _params(), _grads(_params())
  config = Config(learning_rate=0.01, b2=0.98, weight_decay=0.1, clip_norm=1.0)
  reference = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(
      0.01,
      b2=0.98,
      weight_decay=0.1,
      mask={
        'student': {
          'dense': {'kernel': True, 'bias': False},
          'norm': {'scale': False},
        },
        'projection': {'kernel': True},
      },
    ),
  )
  expected, _ = reference.update(grads, reference.init(params), params)
  jax.tree.map(
    np.testing.assert_array_equal, _updates(config, params, grads), expected
  )


def test_auxiliary_parameters_have_an_optimizer_of_their_own():
  params, grads = _params(), _grads(_params())
  updates = _updates(
    Config(name='sgd', learning_rate=1.0, clip_norm=None, trainable='kernel'),
    params,
    grads,
    auxiliary={
      'projection': Config(name='sgd', learning_rate=3.0, clip_norm=None)
    },
  )
  np.testing.assert_array_equal(
    updates['student']['dense']['kernel'], -grads['student']['dense']['kernel']
  )
  np.testing.assert_array_equal(
    updates['projection']['kernel'], -3 * grads['projection']['kernel']
  )


@pytest.mark.parametrize(
  'config, message',
  [
    (Config(name='lion'), r"'lion': must be one of \['adafactor', 'adamw'"),
    (Config(schedule='step'), "'step': must be one of"),
    (Config(schedule='cosine'), 'total_steps=None'),
    (
      Config(schedule='linear', total_steps=5, warmup_steps=5),
      'warmup_steps=5',
    ),
    (Config(clip_norm=0.0), 'clip_norm=0.0'),
  ],
)
def test_bad_configs_are_refused(config, message):
  with pytest.raises(ValueError, match=message):
    optimizers.build(config)


def test_a_pattern_that_finds_nothing_is_refused():
  with pytest.raises(ValueError, match='student/dense/bias'):
    optimizers.build(Config(trainable='decoder')).init(
      {'student': _params()['student']}
    )


def test_what_rests_has_neither_gradient_nor_state():
  params = _params()
  config = Config(trainable='bias', learning_rate=0.1, weight_decay=0.1)
  auxiliary = {'projection': Config(name='sgd')}
  moves = optimizers.moves(config, auxiliary)
  moving, resting = optimizers.split(params, moves)
  sizes = [sum(x.size for x in jax.tree.leaves(t)) for t in (moving, resting)]
  assert sizes == [8 + 8 * 3, 6 * 8 + 6]
  jax.tree.map(
    np.testing.assert_array_equal, optimizers.join(moving, resting), params
  )
  # Gradients of what moves are all that the optimizer of the whole tree needs.
  optimizer = optimizers.build(config, auxiliary)
  opt_state = optimizer.init(params)
  grads = _grads(params)
  whole, _ = optimizer.update(grads, opt_state, params)
  masked, _ = optimizers.split(grads, moves)
  part, after = optimizer.update(masked, opt_state, moving)
  jax.tree.map(
    np.testing.assert_array_equal, part, optimizers.split(whole, moves)[0]
  )
  assert jax.tree.structure(after) == jax.tree.structure(opt_state)
