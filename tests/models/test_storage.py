import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, types
from kdjax.models import kernels

T5 = {
  'model_type': 't5',
  'vocab_size': 40,
  'd_model': 16,
  'd_kv': 8,
  'd_ff': 24,
  'num_heads': 2,
  'num_layers': 2,
  'num_decoder_layers': 2,
  'eos_token_id': 1,
  'pad_token_id': 0,
}
GPT2 = {
  'model_type': 'gpt2',
  'vocab_size': 40,
  'n_positions': 24,
  'n_embd': 16,
  'n_layer': 2,
  'n_head': 2,
  'eos_token_id': 1,
}
CONFIGS = {'t5': T5, 'gpt2': GPT2}
PROMPT = types.Prompt(
  jnp.array([[5, 6, 7, 0], [8, 9, 10, 11]]),
  jnp.array([[True, True, True, False], [True] * 4]),
)
RESPONSE = jnp.array([[12, 13, 14], [15, 16, 17]])


@pytest.fixture(scope='module', params=CONFIGS)
def directory(request, tmp_path_factory):
  path = tmp_path_factory.mktemp(request.param)
  model, params = models.from_config(CONFIGS[request.param], jax.random.key(0))
  models.save_pretrained(path, model, params)
  return path


def logits(model, params):
  hidden = jax.jit(model.hidden_states)(params, PROMPT, RESPONSE)
  return model.head(params, hidden)


@pytest.mark.parametrize('scan', [False, True])
def test_in_bfloat16_half_of_the_bytes_give_the_same_bits(directory, scan):
  load = dict(dtype='bfloat16', scan=scan)
  wide = models.from_pretrained(directory, **load)
  narrow = models.from_pretrained(directory, weights='bfloat16', **load)
  assert kernels.size(narrow[1])[1] < 0.55 * kernels.size(wide[1])[1]
  np.testing.assert_array_equal(logits(*narrow), logits(*wide))


@pytest.mark.slow  # compiles four samplers
@pytest.mark.parametrize('scan', [False, True])
def test_eight_bits_are_the_model_of_the_matrices_they_stand_for(
  directory, scan
):
  model, params = models.from_pretrained(directory, weights='int8', scan=scan)
  whole = kernels.merge(params)
  assert not any(map(kernels.is_kernel, jax.tree.leaves(whole)))
  np.testing.assert_allclose(
    logits(model, params), logits(model, whole), rtol=1e-4, atol=1e-5
  )
  run = dict(max_new_tokens=4, temperature=0)
  key = jax.random.key(0)
  found = sampling.generate(model, params, PROMPT, key, **run)
  expected = sampling.generate(model, whole, PROMPT, key, **run)
  np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_what_narrows_and_what_does_not(directory):
  for weights in ('bfloat16', 'int8'):
    _, params = models.from_pretrained(directory, weights=weights)
    leaves = jax.tree_util.tree_leaves_with_path(
      params, is_leaf=kernels.is_kernel
    )
    for path, leaf in leaves:
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      if name.endswith('/kernel') and weights == 'int8':
        assert isinstance(leaf, kernels.Int8), name
      elif name.endswith(('/scale', '/bias')) or '_bias/' in name:
        assert leaf.dtype == np.float32, name
      else:
        assert leaf.dtype == jnp.bfloat16, name


def test_scanned_layers_are_stored_as_unrolled_ones(directory):
  _, plain = models.from_pretrained(directory, weights='int8')
  _, stacked = models.from_pretrained(directory, weights='int8', scan=True)
  for i in range(2):
    layer = jax.tree.map(lambda x, i=i: x[i], stacked['decoder']['layers'])
    jax.tree.map(
      np.testing.assert_array_equal, layer, plain['decoder'][f'layers_{i}']
    )


@pytest.mark.parametrize('weights', ['float32', 'bfloat16', 'int8'])
def test_the_shapes_told_beforehand_are_those_loaded(directory, weights):
  _, shapes = models.abstract(directory, weights=weights)
  _, params = models.from_pretrained(directory, weights=weights)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
    lambda x: (x.shape, x.dtype), params
  )


@pytest.mark.slow
def test_fresh_models_are_stored_like_loaded_ones(tmp_path):
  key = jax.random.key(3)
  model, params = models.from_config(T5, key, weights='int8', init='copy')
  plain = models.from_config(T5, key, init='copy')
  models.save_pretrained(tmp_path, *plain)
  _, loaded = models.from_pretrained(tmp_path, weights='int8')
  assert jax.tree.structure(params) == jax.tree.structure(loaded)
  # A value that lies between two steps may go to either.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1), params, loaded
  )
  cast, narrow = models.cast(model, params, 'bfloat16')
  assert np.isfinite(logits(cast, narrow)).all()
  back = tmp_path / 'back'
  models.save_pretrained(back, model, params)
  again = models.from_pretrained(back)
  np.testing.assert_allclose(
    logits(*again), logits(model, kernels.merge(params)), rtol=1e-2, atol=1e-2
  )


def test_no_copy_of_all_scanned_layers_is_made():
  config = {**GPT2, 'n_embd': 64, 'n_head': 4, 'n_layer': 8}
  for dtype in ('float32', 'bfloat16'):
    model, params = models.from_config(
      config, jax.random.key(0), weights='int8', scan=True, dtype=dtype
    )
    wide = sum(
      x.size * jnp.dtype(dtype).itemsize
      for x in jax.tree.leaves(params)
      if x.dtype == jnp.int8
    )
    compiled = jax.jit(model.hidden_states).lower(params, PROMPT, RESPONSE)
    temporary = compiled.compile().memory_analysis().temp_size_in_bytes
    assert temporary < wide / 2


def test_unknown_weights_are_refused(directory):
  with pytest.raises(ValueError, match="weights='int4': .*'int8'"):
    models.from_pretrained(directory, weights='int4')
  with pytest.raises(ValueError, match="weights='int4': .*'int8'"):
    models.from_config(T5, jax.random.key(0), weights='int4')


def test_layers_are_copied_in_eight_bits(directory):
  model, params = models.from_pretrained(directory, weights='int8')
  student = models.copy_layers((model, params), {'decoder': 1})
  found = dataclasses.asdict(student[0].config)
  assert 1 in (found.get('decoder_layers'), found.get('layers'))
  assert np.isfinite(logits(*student)).all()
