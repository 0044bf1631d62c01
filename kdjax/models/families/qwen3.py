"""Qwen 3: Qwen 2 with normed queries and keys in place of the biases."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.models import causal
from kdjax.models.families import llama, qwen2

TABLE = (
  *llama.TABLE,
  *llama.norms(
    **{
      'attention/q_norm': 'self_attn.q_norm',
      'attention/k_norm': 'self_attn.k_norm',
    }
  ),
)
IGNORED = llama.IGNORED
PREFIX = llama.PREFIX
ARCHITECTURE = 'Qwen3ForCausalLM'
MODEL = llama.MODEL
DEFAULTS = {**qwen2.DEFAULTS, 'head_dim': 128}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face Qwen3 config."""
  base = llama.config(hf)
  return dataclasses.replace(base, qk_norm=True, windows=qwen2.windows(hf))
