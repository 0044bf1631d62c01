"""The shapes that kdjax carries, against published numbers of parameters."""

import json

import jax
import pytest
import transformers

from kdjax import hub, models
from kdjax.models import public

# From the models' cards and papers.
PUBLISHED = {
  'google-t5/t5-small': 60_506_624,
  'google-t5/t5-base': 222_903_552,
  'google-t5/t5-large': 737_668_096,
  'google-t5/t5-3b': 2_851_598_336,
  'google/t5-v1_1-small': 76_961_152,
  'google/t5-base-lm-adapt': 247_577_856,
  'google/t5-large-lm-adapt': 783_150_080,
  'google/t5-xl-lm-adapt': 2_849_757_184,
  'google/flan-t5-xxl': 11_135_332_352,
  'gpt2': 124_439_808,
  'gpt2-xl': 1_557_611_200,
  'facebook/opt-125m': 125_239_296,
  'facebook/opt-350m': 331_196_416,
  'facebook/opt-1.3b': 1_315_758_080,
  'Qwen/Qwen2.5-0.5B': 494_032_768,
  'Qwen/Qwen2.5-7B-Instruct': 7_615_616_512,
  'Qwen/Qwen3-8B': 8_190_735_360,
  'meta-llama/Llama-3.2-1B': 1_235_814_400,
  'meta-llama/Llama-3.1-8B': 8_030_261_248,
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_numbers_of_parameters(name):
  # Scanned: all layers are one to the tracer.
  _, shapes = models.abstract(public.config(name), scan=True)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == PUBLISHED[name]


def test_t5_xl_by_hand():
  width, mlp, inner, layers, vocabulary = 2048, 5120, 2048, 24, 32128
  attention = 4 * width * inner
  encoder = attention + 3 * width * mlp + 2 * width
  decoder = 2 * attention + 3 * width * mlp + 3 * width
  biases = 2 * 32 * 32 + 2 * width
  total = 2 * vocabulary * width + layers * (encoder + decoder) + biases
  assert total == PUBLISHED['google/t5-xl-lm-adapt']


@pytest.mark.parametrize(
  ('name', 'config'),
  [
    ('google-t5/t5-small', transformers.T5Config()),
    ('gpt2', transformers.GPT2Config()),
    ('facebook/opt-125m', transformers.OPTConfig()),
  ],
)
def test_transformers_defaults_are_the_smallest_models(name, config):
  ours, _ = models.abstract(public.config(name))
  theirs, _ = models.abstract(config.to_dict())
  assert ours.config == theirs.config


def test_a_directory_needs_no_weights(tmp_path):
  real = hub.EMBEDDED / 'g2p-student'
  text = (real / 'config.json').read_text()
  (tmp_path / 'config.json').write_text(text)
  model, shapes = models.abstract(str(tmp_path), dtype='bfloat16')
  whole, params = models.from_pretrained(real, dtype='bfloat16')
  assert model.config == whole.config
  assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
    lambda x: (x.shape, x.dtype), params
  )
  assert json.loads(model.hf_config)['d_model'] == model.config.width


def test_weights_and_scanned_layers_are_honoured():
  config = public.config('google/t5-v1_1-small')
  _, shapes = models.abstract(config, scan=True, weights='bfloat16')
  kernel = shapes['encoder']['layers']['mlp']['wo']['kernel']
  assert kernel.shape == (8, 1024, 512) and kernel.dtype == 'bfloat16'
