"""The shapes of public models, as their config.json on the hub states them.

For planning where the hub can't be reached: all that parameters, bytes and
FLOPs follow from. What changes only numbers, such as scaled rotary embeddings,
is left out, so that these configs are for nothing else.
"""

from collections.abc import Mapping
from typing import Any

_T5 = {
  'model_type': 't5',
  'vocab_size': 32128,
  'd_kv': 64,
  'dropout_rate': 0.1,
  'eos_token_id': 1,
  'pad_token_id': 0,
  'decoder_start_token_id': 0,
}
# v1.0: width, MLP, head size, heads, layers of either stack.
_T5_V10 = {
  'small': (512, 2048, 64, 8, 6),
  'base': (768, 3072, 64, 12, 12),
  'large': (1024, 4096, 64, 16, 24),
  '3b': (1024, 16384, 128, 32, 24),
  '11b': (1024, 65536, 128, 128, 24),
}
# v1.1, of which LM-adapted, Flan and T0 are further trained.
_T5_V11 = {
  'small': (512, 1024, 64, 6, 8),
  'base': (768, 2048, 64, 12, 12),
  'large': (1024, 2816, 64, 16, 24),
  'xl': (2048, 5120, 64, 32, 24),
  'xxl': (4096, 10240, 64, 64, 24),
}
_T5_V11_NAMES = (
  'google/t5-v1_1-{}',
  'google/t5-{}-lm-adapt',
  'google/flan-t5-{}',
)
# Width, heads, layers.
_GPT2 = {
  'gpt2': (768, 12, 12),
  'gpt2-medium': (1024, 16, 24),
  'gpt2-large': (1280, 20, 36),
  'gpt2-xl': (1600, 25, 48),
}
# Width, heads, layers; MLPs are four times as wide.
_OPT = {
  '125m': (768, 12, 12),
  '1.3b': (2048, 32, 24),
  '2.7b': (2560, 32, 32),
  '6.7b': (4096, 32, 32),
  '13b': (5120, 40, 40),
}
# Width, MLP, layers, heads, key-value heads, vocabulary, tied head.
_QWEN25 = {
  '0.5B': (896, 4864, 24, 14, 2, 151936, True),
  '1.5B': (1536, 8960, 28, 12, 2, 151936, True),
  '3B': (2048, 11008, 36, 16, 2, 151936, True),
  '7B': (3584, 18944, 28, 28, 4, 152064, False),
  '14B': (5120, 13824, 48, 40, 8, 152064, False),
}
_QWEN3 = {
  '0.6B': (1024, 3072, 28, 16, 8, 151936, True),
  '1.7B': (2048, 6144, 28, 16, 8, 151936, True),
  '4B': (2560, 9728, 36, 32, 8, 151936, True),
  '8B': (4096, 12288, 36, 32, 8, 151936, False),
}
_LLAMA3 = {
  'Llama-3.2-1B': (2048, 8192, 16, 32, 8, 128256, True),
  'Llama-3.2-3B': (3072, 8192, 28, 24, 8, 128256, True),
  'Llama-3.1-8B': (4096, 14336, 32, 32, 8, 128256, False),
}


def config(name: str) -> Mapping[str, Any] | None:
  """Returns the Hugging Face config of a hub id, None where it isn't known.

  Its `num_tokens`, which the hub's files don't have, is the tokenizer's size.
  """
  return _CONFIGS.get(name)


def _t5(shape: tuple[int, ...], **rest: Any) -> dict[str, Any]:
  keys = ('d_model', 'd_ff', 'd_kv', 'num_heads', 'num_layers')
  # The pieces of the tokenizer and 100 sentinels.
  return {**_T5, **dict(zip(keys, shape)), **rest, 'num_tokens': 32100}


def _gpt2(width: int, heads: int, layers: int) -> dict[str, Any]:
  return {
    'model_type': 'gpt2',
    'vocab_size': 50257,
    'num_tokens': 50257,
    'n_positions': 1024,
    'n_embd': width,
    'n_head': heads,
    'n_layer': layers,
    'bos_token_id': 50256,
    'eos_token_id': 50256,
  }


def _opt(width: int, heads: int, layers: int, **rest: Any) -> dict[str, Any]:
  return {
    'model_type': 'opt',
    'vocab_size': 50272,
    'num_tokens': 50265,
    'max_position_embeddings': 2048,
    'hidden_size': width,
    'ffn_dim': 4 * width,
    'num_attention_heads': heads,
    'num_hidden_layers': layers,
    'word_embed_proj_dim': width,
    'bos_token_id': 2,
    'eos_token_id': 2,
    'pad_token_id': 1,
    **rest,
  }


def _llama(
  kind: str, shape: tuple[Any, ...], num_tokens: int, **rest: Any
) -> dict[str, Any]:
  keys = (
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'vocab_size',
    'tie_word_embeddings',
  )
  return {
    'model_type': kind,
    **dict(zip(keys, shape)),
    'num_tokens': num_tokens,
    'hidden_act': 'silu',
    'rms_norm_eps': 1e-6,
    **rest,
  }


def _all() -> dict[str, dict[str, Any]]:
  found = {}
  for size, shape in _T5_V10.items():
    found[f'google-t5/t5-{size}'] = found[f't5-{size}'] = _t5(shape)
  gated = {'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False}
  for size, shape in _T5_V11.items():
    for pattern in _T5_V11_NAMES:
      found[pattern.format(size)] = _t5(shape, **gated)
  found['bigscience/T0_3B'] = _t5(_T5_V11['xl'], **gated)
  found['bigscience/T0'] = _t5(_T5_V11['xxl'], **gated)
  for name, shape in _GPT2.items():
    found[name] = found[f'openai-community/{name}'] = _gpt2(*shape)
  for size, shape in _OPT.items():
    found[f'facebook/opt-{size}'] = _opt(*shape)
  # The one with narrow embeddings, and norms behind the residuals.
  found['facebook/opt-350m'] = _opt(
    1024, 16, 24, word_embed_proj_dim=512, do_layer_norm_before=False
  )
  ids = {'bos_token_id': 151643, 'pad_token_id': 151643}
  for size, shape in _QWEN25.items():
    for name, eos in ((size, 151643), (f'{size}-Instruct', 151645)):
      found[f'Qwen/Qwen2.5-{name}'] = _llama(
        'qwen2', shape, 151665, rope_theta=1e6, eos_token_id=eos, **ids
      )
  for size, shape in _QWEN3.items():
    found[f'Qwen/Qwen3-{size}'] = _llama(
      'qwen3',
      shape,
      151669,
      rope_theta=1e6,
      head_dim=128,
      eos_token_id=151645,
      **ids,
    )
  for size, shape in _LLAMA3.items():
    for name in (size, f'{size}-Instruct'):
      found[f'meta-llama/{name}'] = _llama(
        'llama',
        shape,
        128256,
        rope_theta=5e5,
        bos_token_id=128000,
        eos_token_id=128001,
      )
  return found


_CONFIGS = _all()
