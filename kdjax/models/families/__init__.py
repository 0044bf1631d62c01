"""The model families, by the `model_type` of their Hugging Face configs.

A family is a module with `MODEL`, the class that runs it; `config`, which reads
a Hugging Face config; `TABLE`, which pairs parameter paths with tensor names;
`IGNORED`, patterns of tensors that hold nothing of their own; `PREFIX`, which
some checkpoints put before every name; `ARCHITECTURE`, the transformers class
that loads what we save; and `DEFAULTS`, what transformers assumes where a
config is silent.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from kdjax.models.families import (
  gemma2,
  gpt2,
  llama,
  mistral,
  opt,
  qwen2,
  qwen3,
  t5,
)

FAMILIES: dict[str, ModuleType] = {
  'gemma2': gemma2,
  'gpt2': gpt2,
  'llama': llama,
  'mistral': mistral,
  'opt': opt,
  'qwen2': qwen2,
  'qwen3': qwen3,
  't5': t5,
}


def get(hf: Mapping[str, Any]) -> ModuleType:
  """Returns the family of a Hugging Face config.

  Raises:
    ValueError: if `model_type` names no family of kdjax.
  """
  name = hf.get('model_type')
  if not isinstance(name, str) or name not in FAMILIES:
    remote = ' (kdjax runs no code from checkpoints)' * ('auto_map' in hf)
    raise ValueError(
      f'model_type {name!r} is not a family that kdjax implements{remote}; '
      f'implemented are {sorted(FAMILIES)}. To add one, see CONTRIBUTING.md.'
    )
  return FAMILIES[name]
