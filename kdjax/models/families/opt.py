"""OPT: GPT-2's shape with ReLU, and positions that begin at row 2."""

from collections.abc import Mapping
from typing import Any

from kdjax.models import causal, decoder_only
from kdjax.models.hf import Entry, start_id

_L, _l = 'decoder/layers_*', 'model.decoder.layers.*'


def _layer(ours: str, theirs: str) -> tuple[Entry, ...]:
  return (
    Entry(f'{_L}/{ours}/kernel', f'{_l}.{theirs}.weight', transpose=True),
    Entry(f'{_L}/{ours}/bias', f'{_l}.{theirs}.bias'),
  )


def _norm(ours: str, theirs: str) -> tuple[Entry, ...]:
  return (
    Entry(f'{ours}/scale', f'{theirs}.weight'),
    Entry(f'{ours}/bias', f'{theirs}.bias'),
  )


def _model(ours: str, theirs: str, transpose: bool = False) -> Entry:
  return Entry(ours, f'model.decoder.{theirs}.weight', transpose)


TABLE = (
  _model('embed/embedding', 'embed_tokens'),
  _model('positions/embedding', 'embed_positions'),
  _model('embed_in/kernel', 'project_in', transpose=True),
  _model('embed_out/kernel', 'project_out', transpose=True),
  *_norm('decoder_norm', 'model.decoder.final_layer_norm'),
  Entry('lm_head', 'lm_head.weight', transpose=True),
  *_norm(f'{_L}/attention_norm', f'{_l}.self_attn_layer_norm'),
  *_layer('attention/q', 'self_attn.q_proj'),
  *_layer('attention/k', 'self_attn.k_proj'),
  *_layer('attention/v', 'self_attn.v_proj'),
  *_layer('attention/o', 'self_attn.out_proj'),
  *_norm(f'{_L}/mlp_norm', f'{_l}.final_layer_norm'),
  *_layer('mlp/wi', 'fc1'),
  *_layer('mlp/wo', 'fc2'),
)
# A mark that old checkpoints hold, and copies of the embedding table.
IGNORED = (r'decoder\.version', r'lm_head\.weight')
PREFIX = 'model.'
ARCHITECTURE = 'OPTForCausalLM'
MODEL = decoder_only.DecoderOnly
DEFAULTS = {
  'bos_token_id': 2,
  'eos_token_id': 2,
  'pad_token_id': 1,
  'activation_function': 'relu',
  'do_layer_norm_before': True,
  'enable_bias': True,
  'tie_word_embeddings': True,
  'dropout': 0.1,
  'attention_dropout': 0.0,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face OPT config.

  Raises:
    ValueError: for norms without parameters.
  """
  if not hf.get('layer_norm_elementwise_affine', True):
    raise ValueError(
      'layer_norm_elementwise_affine is False; kdjax implements OPT with it '
      'True only.'
    )
  width, heads = hf['hidden_size'], hf['num_attention_heads']
  narrow = hf.get('word_embed_proj_dim') or width
  before, bias = hf['do_layer_norm_before'], hf['enable_bias']
  std = hf.get('init_std', 0.02)
  return causal.Config(
    vocab_size=hf['vocab_size'],
    width=width,
    head_size=width // heads,
    heads=heads,
    kv_heads=heads,
    mlp_width=hf['ffn_dim'],
    layers=hf['num_hidden_layers'],
    activation=hf['activation_function'],
    gated_mlp=False,
    norm='layer',
    norm_order='before' if before else 'after',
    norm_eps=1e-5,
    final_norm=before and not hf.get('_remove_final_layer_norm', False),
    qkv_bias=bias,
    output_bias=bias,
    mlp_bias=bias,
    attention_scale=(width // heads) ** -0.5,
    max_positions=hf['max_position_embeddings'],
    position_offset=2,
    embedding_width=narrow if narrow != width else None,
    tied_head=hf['tie_word_embeddings'],
    start_id=start_id(hf),
    dropout=hf['dropout'],
    attention_dropout=hf['attention_dropout'],
    init_std=std,
    output_std=std,
  )
