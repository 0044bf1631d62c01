"""Llama 1 to 3 and what shares its architecture."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.models import causal, decoder_only, rotary
from kdjax.models.hf import Entry, start_id

_L, _l = 'decoder/layers_*', 'model.layers.*'

# The matrices, and their biases where a family has some.
PROJECTIONS = tuple(
  entry
  for ours, theirs in (
    *((f'attention/{x}', f'self_attn.{x}_proj') for x in 'qkvo'),
    ('mlp/wi_0', 'mlp.gate_proj'),
    ('mlp/wi_1', 'mlp.up_proj'),
    ('mlp/wo', 'mlp.down_proj'),
  )
  for entry in (
    Entry(f'{_L}/{ours}/kernel', f'{_l}.{theirs}.weight', transpose=True),
    Entry(f'{_L}/{ours}/bias', f'{_l}.{theirs}.bias'),
  )
)
ENDS = (
  Entry('embed/embedding', 'model.embed_tokens.weight'),
  Entry('decoder_norm/scale', 'model.norm.weight'),
  Entry('lm_head', 'lm_head.weight', transpose=True),
)


def norms(**names: str) -> tuple[Entry, ...]:
  """Pairs our norms' names with theirs, in every layer."""
  return tuple(
    Entry(f'{_L}/{ours}/scale', f'{_l}.{theirs}.weight')
    for ours, theirs in names.items()
  )


TABLE = (
  *ENDS,
  *PROJECTIONS,
  *norms(attention_norm='input_layernorm', mlp_norm='post_attention_layernorm'),
)
# Constants that old checkpoints hold, and copies of the embedding table.
IGNORED = (
  r'layers\.\d+\.self_attn\.rotary_emb\.inv_freq',
  r'lm_head\.weight',
)
PREFIX = 'model.'
ARCHITECTURE = 'LlamaForCausalLM'
MODEL = decoder_only.DecoderOnly
DEFAULTS = {
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_act': 'silu',
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': False,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face Llama config.

  Raises:
    ValueError: for an odd head size or a rotary scaling unknown to `rotary`.
  """
  heads = hf['num_attention_heads']
  head_size = hf.get('head_dim') or hf['hidden_size'] // heads
  frequencies, scale = rotary.from_hf(hf, head_size)
  std = hf.get('initializer_range', 0.02)
  return causal.Config(
    vocab_size=hf['vocab_size'],
    width=hf['hidden_size'],
    head_size=head_size,
    heads=heads,
    kv_heads=hf.get('num_key_value_heads') or heads,
    mlp_width=hf['intermediate_size'],
    layers=hf['num_hidden_layers'],
    activation=hf['hidden_act'],
    norm_eps=hf['rms_norm_eps'],
    qkv_bias=hf.get('attention_bias', False),
    output_bias=hf.get('attention_bias', False),
    mlp_bias=hf.get('mlp_bias', False),
    attention_scale=head_size**-0.5,
    frequencies=frequencies,
    rotary_scale=scale,
    tied_head=hf['tie_word_embeddings'],
    start_id=start_id(hf),
    attention_dropout=hf.get('attention_dropout') or 0.0,
    init_std=std,
    output_std=std,
  )


def windows(
  layer_types: Sequence[str], window: int | None
) -> tuple[int | None, ...]:
  """Returns each layer's sliding window, None for full attention.

  Raises:
    ValueError: for a layer type of another kind.
  """
  known = {'sliding_attention': window, 'full_attention': None}
  unknown = sorted(set(layer_types) - set(known))
  if unknown:
    raise ValueError(
      f'layer_types holds {unknown}; implemented are {sorted(known)}'
    )
  found = tuple(known[kind] for kind in layer_types)
  return found if any(found) else ()
