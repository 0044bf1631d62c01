"""Mistral: Llama with a sliding window."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.models import causal
from kdjax.models.families import llama

TABLE = llama.TABLE
IGNORED = llama.IGNORED
PREFIX = llama.PREFIX
ARCHITECTURE = 'MistralForCausalLM'
MODEL = llama.MODEL
DEFAULTS = {
  **llama.DEFAULTS,
  'num_key_value_heads': 8,
  'sliding_window': 4096,
}


def config(hf: Mapping[str, Any]) -> causal.Config:
  """Reads a Hugging Face Mistral config; `sliding_window` may be None."""
  base = llama.config(hf)
  window = hf['sliding_window']
  windows = (window,) * base.layers if window else ()
  return dataclasses.replace(base, windows=windows)
