"""transformers' torch models, for tests to hold ours against."""

import os

# Before anything imports the hub's client: no test asks the network.
os.environ['HF_HUB_OFFLINE'] = '1'

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  """Tiny models spend their time in the compiler; it is told to hurry."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def reference(tmp_path_factory):
  """Returns a function: config -> (torch model, directory it is saved in).

  Parameters are random, those that start as zeros or ones included.
  """
  import torch
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
