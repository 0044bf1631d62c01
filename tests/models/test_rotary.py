import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from transformers import modeling_rope_utils

from kdjax.models import rotary

BASE = {'max_position_embeddings': 64, 'rope_theta': 500.0}
SCALINGS = {
  'linear': {'rope_type': 'linear', 'factor': 3.0},
  'llama3': {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 48,
  },
  'yarn': {'rope_type': 'yarn', 'factor': 4.0},
  'yarn_full': {
    'rope_type': 'yarn',
    'factor': 4.0,
    'original_max_position_embeddings': 16,
    'beta_fast': 20.0,
    'beta_slow': 2.0,
    'truncate': False,
    'mscale': 0.7,
    'mscale_all_dim': 0.4,
  },
  'yarn_plain': {
    'rope_type': 'yarn',
    'factor': 4.0,
    'attention_factor': 0.5,
  },
}


@pytest.mark.parametrize('name', SCALINGS)
def test_scaled_frequencies_are_those_of_transformers(name):
  scaling = SCALINGS[name]
  parameters = {**scaling, 'rope_theta': BASE['rope_theta']}
  config = transformers.LlamaConfig(
    head_dim=20, max_position_embeddings=64, rope_parameters=parameters
  )
  compute = modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling['rope_type']]
  expected, factor = compute(config, 'cpu')
  frequencies, scale = rotary.from_hf(config.to_dict(), 20)
  np.testing.assert_allclose(frequencies, expected, rtol=1e-5)
  np.testing.assert_allclose(scale, factor, rtol=1e-6)
  # As earlier versions of transformers wrote it.
  old = dict(scaling)
  old['type'] = old.pop('rope_type')
  assert rotary.from_hf({**BASE, 'rope_scaling': old}, 20) == (
    frequencies,
    scale,
  )


def test_default_frequencies():
  expected = 10_000.0 ** (-np.arange(0, 6, 2) / 6)
  for config in ({}, {'rope_scaling': None}, {'rope_parameters': None}):
    frequencies, scale = rotary.from_hf(config, 6)
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)
    assert scale == 1.0


def test_scores_depend_on_the_distance_only():
  rng = np.random.default_rng(0)
  query, key = rng.standard_normal((2, 1, 1, 1, 8)).astype(np.float32)
  frequencies, _ = rotary.from_hf({}, 8)

  def score(i, j):
    def turn(x, position):
      angles = rotary.angles(jnp.array([[position]]), frequencies, 1.0)
      return rotary.rotate(x, *angles)

    return float((turn(query, i) * turn(key, j)).sum())

  np.testing.assert_allclose(score(11, 4), score(107, 100), rtol=1e-4)
  np.testing.assert_allclose(score(3, 3), (query * key).sum(), rtol=1e-5)
  assert abs(score(11, 4) - score(4, 11)) > 1e-3


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'rope_scaling': {'rope_type': 'dynamic', 'factor': 2}}, "'dynamic'"),
    ({'rope_scaling': {'type': 'longrope'}}, "'longrope' is not implemented"),
    ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor 0.5'),
    (
      {'rope_parameters': {'full_attention': {'rope_type': 'default'}}},
      'each layer type',
    ),
  ],
)
def test_other_kinds_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    rotary.from_hf({**BASE, **changes}, 8)


def test_odd_heads_are_refused():
  with pytest.raises(ValueError, match='head size 7 is odd'):
    rotary.from_hf(BASE, 7)
