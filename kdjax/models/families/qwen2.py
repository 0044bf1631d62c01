"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.models import causal
from kdjax.models.families import llama

TABLE = llama.TABLE
IGNORED = llama.IGNORED
PREFIX = llama.PREFIX
ARCHITECTURE = 'Qwen2ForCausalLM'
MODEL = llama.MODEL
DEFAULTS = {
  **llama.DEFAULTS,
  'bos_token_id': None,
  'eos_token_id': None,
  'use_sliding_window': False,
  'sliding_window': 4096,
  'max_window_layers': 28,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face Qwen2 config."""
  return dataclasses.replace(
    llama.config(hf),
    qkv_bias=True,
    output_bias=False,
    windows=windows(hf),
  )


def windows(hf: Mapping[str, Any]) -> tuple[int | None, ...]:
  """Returns each layer's window; the first `max_window_layers` have none."""
  window = hf['sliding_window']
  if not hf['use_sliding_window'] or not window:
    return ()
  kinds = hf.get('layer_types') or [
    'sliding_attention' if i >= hf['max_window_layers'] else 'full_attention'
    for i in range(hf['num_hidden_layers'])
  ]
  return llama.windows(kinds, window)
