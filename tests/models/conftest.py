"""transformers' torch models, for tests to hold ours against."""

import functools
import os

# Before anything imports the hub's client: no test asks the network.
os.environ['HF_HUB_OFFLINE'] = '1'

import pytest


@pytest.fixture(scope='session')
def reference(tmp_path_factory):
  """Returns a function: config -> (torch model, directory it is saved in).

  Parameters are random, those that start as zeros or ones included.
  """
  torch = pytest.importorskip('torch')
  import transformers

  torch.set_num_threads(1)
  transformers.utils.logging.disable_progress_bar()
  made = {}

  def make(config, seed=0, scale=0.3):
    key = config.to_json_string(), seed, scale
    if key not in made:
      torch.manual_seed(seed)
      is_pair = config.is_encoder_decoder
      auto = (
        transformers.AutoModelForSeq2SeqLM
        if is_pair
        else transformers.AutoModelForCausalLM
      )
      model = auto.from_config(config, attn_implementation='eager').eval()
      with torch.no_grad():
        for parameter in model.parameters():
          parameter.add_(scale * torch.randn_like(parameter))
      directory = tmp_path_factory.mktemp(config.model_type)
      model.save_pretrained(directory)
      made[key] = model, directory
    return made[key]

  return make


@pytest.fixture(scope='session')
def decoder_configs():
  """Returns transformers configs by name, each made by a call.

  Awkward on purpose: widths that aren't multiples of anything, head sizes that
  don't divide the width, shared and single key-value heads, windows shorter
  than the sequence, caps that bite.
  """
  import transformers

  llama = dict(
    vocab_size=37,
    hidden_size=12,
    intermediate_size=18,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
  )
  gpt2 = dict(vocab_size=37, n_positions=24, n_embd=15, n_layer=2, n_head=3)
  opt = dict(
    vocab_size=37,
    hidden_size=15,
    num_hidden_layers=2,
    ffn_dim=22,
    max_position_embeddings=24,
    num_attention_heads=3,
  )
  stretched = {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 8,
    'rope_theta': 100.0,
  }

  return {
    'gpt2': lambda: transformers.GPT2Config(
      **gpt2, n_inner=14, bos_token_id=2, eos_token_id=2, pad_token_id=0
    ),
    'opt': lambda: transformers.OPTConfig(**opt),
    'opt_350m': lambda: transformers.OPTConfig(
      **opt,
      word_embed_proj_dim=7,
      do_layer_norm_before=False,
      enable_bias=False,
      activation_function='gelu',
    ),
    'llama': lambda: transformers.LlamaConfig(
      **llama, head_dim=6, attention_bias=True, mlp_bias=True
    ),
    'llama3': lambda: transformers.LlamaConfig(
      **llama,
      head_dim=10,
      tie_word_embeddings=True,
      max_position_embeddings=64,
      rope_parameters=stretched,
    ),
    'mistral': lambda: transformers.MistralConfig(
      **{**llama, 'num_attention_heads': 3, 'num_key_value_heads': 1},
      sliding_window=4,
    ),
    'qwen2': lambda: transformers.Qwen2Config(
      **{**llama, 'num_attention_heads': 6, 'num_key_value_heads': 3},
      use_sliding_window=True,
      sliding_window=4,
      max_window_layers=1,
    ),
    'qwen3': lambda: transformers.Qwen3Config(**llama, head_dim=10),
    'gemma2': lambda: transformers.Gemma2Config(
      **{**llama, 'num_hidden_layers': 3},
      head_dim=6,
      query_pre_attn_scalar=5,
      sliding_window=4,
      attn_logit_softcapping=2.0,
      final_logit_softcapping=3.0,
    ),
  }


@pytest.fixture(scope='session')
def load_decoder(reference, decoder_configs):
  """Returns a function: name -> (torch model, our model, our parameters)."""

  from kdjax import models

  @functools.cache
  def load(name, **options):
    theirs, directory = reference(decoder_configs[name]())
    return theirs, *models.from_pretrained(directory, **options)

  return load
