"""Gemma 2: norms on both sides of a branch, soft caps, alternating windows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.models import causal
from kdjax.models.families import llama

TABLE = (
  *llama.ENDS,
  *llama.PROJECTIONS,
  *llama.norms(
    attention_norm='input_layernorm',
    attention_post_norm='post_attention_layernorm',
    mlp_norm='pre_feedforward_layernorm',
    mlp_post_norm='post_feedforward_layernorm',
  ),
)
IGNORED = llama.IGNORED
PREFIX = llama.PREFIX
ARCHITECTURE = 'Gemma2ForCausalLM'
MODEL = llama.MODEL
DEFAULTS = {
  **llama.DEFAULTS,
  'bos_token_id': 2,
  'eos_token_id': 1,
  'pad_token_id': 0,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh',
  'query_pre_attn_scalar': 256,
  'sliding_window': 4096,
  'final_logit_softcapping': 30.0,
  'attn_logit_softcapping': 50.0,
  'tie_word_embeddings': True,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face Gemma 2 config.

  Raises:
    ValueError: for `use_bidirectional_attention`.
  """
  if hf.get('use_bidirectional_attention'):
    raise ValueError(
      'use_bidirectional_attention is True; kdjax runs Gemma 2 as a causal '
      'language model, which needs it to be False.'
    )
  base = llama.config(hf)
  kinds = hf.get('layer_types') or [
    'full_attention' if i % 2 else 'sliding_attention'
    for i in range(base.layers)
  ]
  return dataclasses.replace(
    base,
    activation=hf['hidden_activation'],
    norm='rms_offset',
    norm_order='both',
    attention_scale=hf['query_pre_attn_scalar'] ** -0.5,
    attention_softcap=hf['attn_logit_softcapping'],
    final_softcap=hf['final_logit_softcapping'],
    embedding_scale=base.width**0.5,
    windows=llama.windows(kinds, hf['sliding_window']),
  )
