import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from kdjax import models

SIZES = dict(
  vocab_size=20,
  hidden_size=8,
  intermediate_size=10,
  num_hidden_layers=2,
  num_attention_heads=2,
)


@pytest.fixture
def directory(reference, tmp_path):
  """A Llama model's directory, to be tampered with."""
  theirs, _ = reference(transformers.LlamaConfig(**SIZES))
  theirs.save_pretrained(tmp_path)
  return tmp_path


def edit_json(path, **changes):
  old = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps({**old, **changes}))


def edit_tensors(directory, change):
  path = directory / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path, {'format': 'pt'})


def test_remote_code_is_refused(directory):
  with pytest.raises(ValueError, match="trust_remote_code=True.*'llama'"):
    models.from_pretrained(directory, trust_remote_code=True)
  edit_json(directory / 'config.json', model_type='own', auto_map={})
  with pytest.raises(ValueError, match="'own' .*runs no code"):
    models.from_pretrained(directory)


def test_a_model_that_cannot_be_had_names_the_way_out():
  with pytest.raises(FileNotFoundError, match='/no/such.*:embedded'):
    models.from_pretrained('/no/such')
  with pytest.raises(FileNotFoundError, match="'no/such' from .*:embedded"):
    models.from_pretrained('no/such')


def test_the_generation_config_outranks_the_config(directory):
  edit_json(directory / 'config.json', eos_token_id=2, pad_token_id=None)
  edit_json(
    directory / 'generation_config.json', eos_token_id=[7, 5], bos_token_id=3
  )
  model, _ = models.from_pretrained(directory)
  assert model.eos_ids == (7, 5)
  assert model.pad_id == 7
  assert model.config.start_id == 3
  target = directory / 'saved'
  models.save_pretrained(target, model, models.from_pretrained(directory)[1])
  loaded = transformers.AutoModelForCausalLM.from_pretrained(target)
  assert loaded.generation_config.eos_token_id == [7, 5]


def test_silent_configs_mean_the_defaults_of_transformers(directory):
  config = json.loads((directory / 'config.json').read_text())
  for name in ('eos_token_id', 'bos_token_id', 'rms_norm_eps', 'hidden_act'):
    del config[name]
  (directory / 'config.json').write_text(json.dumps(config))
  (directory / 'generation_config.json').unlink()
  model, _ = models.from_pretrained(directory)
  assert model.eos_ids == (2,) and model.config.start_id == 1


def test_tokenizers_tell_which_rows_are_padding(directory):
  assert models.from_pretrained(directory)[0].num_tokens == 20
  tokenizer = {
    'model': {'vocab': {'a': 0, 'b': 11}},
    'added_tokens': [{'id': 14}],
  }
  edit_json(directory / 'tokenizer.json', **tokenizer)
  model, _ = models.from_pretrained(directory)
  assert model.num_tokens == 15 and model.vocab_size == 20
  assert models.from_pretrained(directory, num_tokens=12)[0].num_tokens == 12
  # A unigram tokenizer lists its pieces; a tokenizer may outgrow the model.
  edit_json(directory / 'tokenizer.json', model={'vocab': [['a', 0.0]] * 30})
  assert models.from_pretrained(directory)[0].num_tokens == 20


def test_options_reach_the_config(directory):
  model, params = models.from_pretrained(
    directory, dtype=jnp.bfloat16, scan=True, remat=True, dropout=0.3
  )
  c = model.config
  assert (c.dtype, c.scan, c.remat) == (jnp.bfloat16, True, True)
  assert (c.dropout, c.attention_dropout, c.embedding_dropout) == (0.3,) * 3
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
  kernel = params['decoder']['layers']['attention']['q']['kernel']
  assert kernel.shape == (2, 8, 8)
  with pytest.raises(TypeError, match='scam'):
    models.from_pretrained(directory, scam=True)


def test_missing_and_unused_tensors_are_all_named(directory):
  def change(tensors):
    del tensors['model.layers.1.mlp.up_proj.weight']
    tensors['model.layers.1.lora.weight'] = np.zeros((2, 2), np.float32)
    tensors['model.norm.weight'] = np.zeros(9, np.float32)

  edit_tensors(directory, change)
  with pytest.raises(ValueError) as error:
    models.from_pretrained(directory)
  message = str(error.value)
  assert 'do not fit the llama config' in message
  assert 'missing: model.layers.1.mlp.up_proj.weight' in message
  assert 'unused: model.layers.1.lora.weight (2, 2)' in message
  assert (
    'shape: model.norm.weight gives (9,)' in message and 'needs (8,)' in message
  )


def test_an_untied_head_must_be_there(directory):
  edit_tensors(directory, lambda tensors: tensors.pop('lm_head.weight'))
  with pytest.raises(ValueError, match='missing: lm_head.weight'):
    models.from_pretrained(directory)


def test_a_copy_of_the_table_is_a_tied_head(directory, tmp_path):
  edit_json(directory / 'config.json', tie_word_embeddings=True)

  def copy(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()

  untied, other = models.from_pretrained(directory)
  assert not untied.config.tied_head and 'lm_head' in other
  edit_tensors(directory, copy)
  tied, params = models.from_pretrained(directory)
  assert tied.config.tied_head and 'lm_head' not in params
  for model, loaded in ((untied, other), (tied, params)):
    models.save_pretrained(tmp_path / 'saved', model, loaded)
    config = json.loads((tmp_path / 'saved/config.json').read_text())
    assert config['tie_word_embeddings'] == model.config.tied_head


def test_bin_files_and_constants_of_old_checkpoints(directory):
  expected = models.from_pretrained(directory)[1]
  path = directory / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(2)
  torch.save(
    {k: torch.tensor(v) for k, v in tensors.items()},
    directory / 'pytorch_model.bin',
  )
  path.unlink()
  jax.tree.map(
    np.testing.assert_array_equal,
    models.from_pretrained(directory)[1],
    expected,
  )


def test_gpt2_names_without_prefix(reference, tmp_path):
  config = transformers.GPT2Config(
    vocab_size=20, n_positions=8, n_embd=6, n_layer=1, n_head=2
  )
  _, source = reference(config)
  expected = models.from_pretrained(source)[1]
  tensors = safetensors.numpy.load_file(source / 'model.safetensors')
  bare = {k.removeprefix('transformer.'): v for k, v in tensors.items()}
  assert 'h.0.attn.c_attn.weight' in bare
  bare['h.0.attn.bias'] = np.ones((1, 1, 8, 8), np.float32)
  safetensors.numpy.save_file(bare, tmp_path / 'model.safetensors')
  config.save_pretrained(tmp_path)
  jax.tree.map(
    np.testing.assert_array_equal, models.from_pretrained(tmp_path)[1], expected
  )


def test_bfloat16_files_load_in_transformers(directory, tmp_path):
  model, params = models.from_pretrained(directory)
  models.save_pretrained(tmp_path / 'half', model, params, dtype=jnp.bfloat16)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'half')
  assert theirs.dtype == torch.bfloat16
  _, again = models.from_pretrained(tmp_path / 'half')
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  jax.tree.map(np.testing.assert_array_equal, again, rounded)


def test_fresh_parameters_depend_neither_on_scanning_nor_on_the_config_type():
  config = transformers.LlamaConfig(**SIZES)
  key = jax.random.key(0)
  model, params = models.from_config(config, key, num_tokens=18)
  assert model.num_tokens == 18
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
  scanned, stacked = models.from_config(
    config.to_dict(), key, num_tokens=18, scan=True
  )
  unrolled = dataclasses.replace(scanned.config, scan=False)
  twin = dataclasses.replace(scanned, config=unrolled)
  assert twin == model and hash(twin) == hash(model)
  for i in range(2):
    jax.tree.map(
      np.testing.assert_array_equal,
      params['decoder'][f'layers_{i}'],
      jax.tree.map(lambda x, i=i: x[i], stacked['decoder']['layers']),
    )
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(jnp.shape(x), y.shape),
    params,
    jax.eval_shape(model.init, key),
  )


def test_imports_stay_light():
  code = (
    'import sys; from kdjax import losses, sampling, models; '
    "print([m for m in ('tensorflow', 'transformers', 'torch', 'seqio', "
    "'grain', 'datasets') if m in sys.modules])"
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == '[]'


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('weights', ['float32', 'bfloat16', 'int8'])
def test_weights_are_finite(value, weights, directory):
  name = 'model.layers.1.mlp.up_proj.weight'

  def change(tensors):
    tensors[name][2, 3] = value

  edit_tensors(directory, change)
  with pytest.raises(ValueError, match=f'{directory}.*') as error:
    models.from_pretrained(directory, weights=weights)
  counts = '1 NaN and 0' if np.isnan(value) else '0 NaN and 1'
  assert f'values: {name} has {counts} infinite of 80 values' in str(
    error.value
  )


def test_what_no_parameter_reads_may_hold_anything(directory):
  """Such as the minus infinity of a mask."""

  def change(tensors):
    name = 'model.layers.0.self_attn.rotary_emb.inv_freq'
    tensors[name] = np.full(2, -np.inf, np.float32)

  edit_tensors(directory, change)
  models.from_pretrained(directory)


def test_whole_numbers_are_no_weights(directory):
  def change(tensors):
    tensors['model.norm.weight'] = np.ones(8, np.int32)

  edit_tensors(directory, change)
  with pytest.raises(ValueError, match='norm.weight has int32 values'):
    models.from_pretrained(directory)


def test_one_tensor_under_two_names(directory):
  def change(tensors):
    tensors['norm.weight'] = np.ones(8, np.float32)

  edit_tensors(directory, change)
  with pytest.raises(ValueError, match="also with 'model.' before it"):
    models.from_pretrained(directory)


def test_more_layers_than_tensors(directory):
  edit_json(directory / 'config.json', num_hidden_layers=1000)
  with pytest.raises(ValueError, match='1000 layers, but the files hold 21'):
    models.from_pretrained(directory)
