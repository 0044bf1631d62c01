import jax
import pytest
import transformers

from kdjax import models
from kdjax.models import families


@pytest.mark.parametrize('name', sorted(families.FAMILIES))
def test_families_are_whole(name):
  family = families.FAMILIES[name]
  assert family.DEFAULTS.keys() >= {'eos_token_id'}
  assert hasattr(transformers, family.ARCHITECTURE)
  assert callable(family.config) and family.__doc__


@pytest.mark.parametrize(
  'name, changes, message',
  [
    ('gpt2', {'add_cross_attention': True}, 'add_cross_attention'),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'inverse_layer_idx'),
    ('gpt2', {'activation_function': 'tanhish'}, "activation 'tanhish'"),
    ('opt', {'layer_norm_elementwise_affine': False}, 'elementwise_affine'),
    ('gemma2', {'use_bidirectional_attention': True}, 'bidirectional'),
    ('qwen2', {'layer_types': ['full_attention', 'linear']}, "'linear'"),
    ('llama', {'head_dim': 5}, 'head size 5 is odd'),
    ('llama', {'model_type': 'mamba'}, "'mamba' is not a family"),
    ('llama', {'model_type': 'x', 'auto_map': {}}, 'runs no code'),
  ],
)
def test_what_is_not_implemented_is_refused(
  decoder_configs, name, changes, message
):
  config = {**decoder_configs[name]().to_dict(), **changes}
  with pytest.raises(ValueError, match=message):
    models.from_config(config, jax.random.key(0))


def test_a_config_that_lacks_a_size_is_refused(decoder_configs):
  config = decoder_configs['llama']().to_dict()
  del config['hidden_size']
  with pytest.raises(ValueError, match="llama config lacks 'hidden_size'"):
    models.from_config(config, jax.random.key(0))
