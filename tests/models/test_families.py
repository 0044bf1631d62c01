import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from kdjax import models, types
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


T5 = {
  'model_type': 't5',
  'vocab_size': 37,
  'd_model': 12,
  'd_kv': 5,
  'd_ff': 18,
  'num_layers': 1,
  'num_heads': 3,
}


@functools.partial(jax.jit, static_argnums=0)
def in_three_ways(model, params, prompt, response):
  """Returns all logits [B, T, V]: forced, decoded at once, and one by one."""
  hidden = model.hidden_states(params, prompt, response)
  told = response[:, :-1]
  first, state = model.prefill(params, prompt, told.shape[1])
  at_once, _ = model.decode(params, state, told)

  def step(state, token):
    logits, state = model.decode(params, state, token[:, None])
    return state, logits[:, 0]

  steps = jnp.moveaxis(jax.lax.scan(step, state, told.T)[1], 0, 1)
  decoded = [jnp.concatenate([first[:, None], x], 1) for x in (at_once, steps)]
  return model.head(params, hidden), *decoded


@pytest.mark.parametrize('name', sorted(families.FAMILIES))
def test_a_prefilled_state_has_room_for_all_tokens_it_was_asked_for(
  decoder_configs, name
):
  config = T5 if name == 't5' else decoder_configs[name]()
  model, params = models.from_config(config, jax.random.key(0), scan=True)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x + 0.2 * rng.normal(size=x.shape).astype('f'), params
  )
  ids = jnp.asarray(rng.integers(3, 37, (2, 9)), jnp.int32)
  prompt = types.Prompt(ids[:, :4], jnp.ones((2, 4), bool).at[1, :2].set(False))
  expected, *found = in_three_ways(model, params, prompt, ids[:, 4:])
  for logits in found:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
