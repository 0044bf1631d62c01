"""GPT-2: learned positions, layer norms, fused query-key-value matrices."""

import math
from collections.abc import Mapping
from typing import Any

from kdjax.models import causal, decoder_only
from kdjax.models.hf import Entry, start_id

_L, _l = 'decoder/layers_*', 'transformer.h.*'


# GPT-2 stores matrices as [in, out], like us.
def _layer(ours: str, theirs: str) -> tuple[Entry, ...]:
  return (
    Entry(f'{_L}/{ours}/kernel', f'{_l}.{theirs}.weight'),
    Entry(f'{_L}/{ours}/bias', f'{_l}.{theirs}.bias'),
  )


def _norm(ours: str, theirs: str) -> tuple[Entry, ...]:
  return (
    Entry(f'{ours}/scale', f'{theirs}.weight'),
    Entry(f'{ours}/bias', f'{theirs}.bias'),
  )


def _fused(name: str, part: int) -> tuple[Entry, ...]:
  ours, theirs = f'{_L}/attention/{name}', f'{_l}.attn.c_attn'
  third = {'part': part, 'parts': (1, 1, 1)}
  return (
    Entry(f'{ours}/kernel', f'{theirs}.weight', **third),
    Entry(f'{ours}/bias', f'{theirs}.bias', **third),
  )


TABLE = (
  Entry('embed/embedding', 'transformer.wte.weight'),
  Entry('positions/embedding', 'transformer.wpe.weight'),
  *_norm('decoder_norm', 'transformer.ln_f'),
  Entry('lm_head', 'lm_head.weight', transpose=True),
  *_norm(f'{_L}/attention_norm', f'{_l}.ln_1'),
  *_fused('q', 0),
  *_fused('k', 1),
  *_fused('v', 2),
  *_layer('attention/o', 'attn.c_proj'),
  *_norm(f'{_L}/mlp_norm', f'{_l}.ln_2'),
  *_layer('mlp/wi', 'mlp.c_fc'),
  *_layer('mlp/wo', 'mlp.c_proj'),
)
# Causal masks that old checkpoints hold, and copies of the embedding table.
IGNORED = (r'h\.\d+\.attn\.(bias|masked_bias)', r'lm_head\.weight')
PREFIX = 'transformer.'
ARCHITECTURE = 'GPT2LMHeadModel'
MODEL = decoder_only.DecoderOnly
DEFAULTS = {
  'bos_token_id': 50256,
  'eos_token_id': 50256,
  'activation_function': 'gelu_new',
  'layer_norm_epsilon': 1e-5,
  'tie_word_embeddings': True,
  'embd_pdrop': 0.1,
  'attn_pdrop': 0.1,
  'resid_pdrop': 0.1,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face GPT-2 config.

  Raises:
    ValueError: for cross-attention and for scores divided by the layer's index.
  """
  for name in ('add_cross_attention', 'scale_attn_by_inverse_layer_idx'):
    if hf.get(name):
      raise ValueError(
        f'{name} is True; kdjax implements GPT-2 with it False only.'
      )
  width, heads = hf['n_embd'], hf['n_head']
  std = hf.get('initializer_range', 0.02)
  scaled = hf.get('scale_attn_weights', True)
  return causal.Config(
    vocab_size=hf['vocab_size'],
    width=width,
    head_size=width // heads,
    heads=heads,
    kv_heads=heads,
    mlp_width=hf.get('n_inner') or 4 * width,
    layers=hf['n_layer'],
    activation=hf['activation_function'],
    gated_mlp=False,
    norm='layer',
    norm_eps=hf['layer_norm_epsilon'],
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    attention_scale=(width // heads) ** -0.5 if scaled else 1.0,
    max_positions=hf['n_positions'],
    tied_head=hf['tie_word_embeddings'],
    start_id=start_id(hf),
    dropout=hf['resid_pdrop'],
    attention_dropout=hf['attn_pdrop'],
    embedding_dropout=hf['embd_pdrop'],
    init_std=std,
    output_std=std / math.sqrt(2 * hf['n_layer']),
  )
