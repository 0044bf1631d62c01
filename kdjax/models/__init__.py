"""Language models behind one protocol (`api.LanguageModel`)."""

from kdjax.models.api import Head, LanguageModel, cast, logprobs
from kdjax.models.copying import copy_layers
from kdjax.models.kernels import merge
from kdjax.models.lora import add_lora
from kdjax.models.mixtures import mixture
from kdjax.models.pretrained import (
  abstract,
  from_config,
  from_pretrained,
  save_pretrained,
)

__all__ = [
  'Head',
  'LanguageModel',
  'abstract',
  'add_lora',
  'cast',
  'copy_layers',
  'from_config',
  'from_pretrained',
  'logprobs',
  'merge',
  'mixture',
  'save_pretrained',
]
