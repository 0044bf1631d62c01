"""Language models behind one protocol (`api.LanguageModel`)."""

from kdjax.models.api import Head, LanguageModel, cast, logprobs
from kdjax.models.copying import copy_layers
from kdjax.models.mixtures import mixture
from kdjax.models.pretrained import (
  count_parameters,
  from_config,
  from_pretrained,
  save_pretrained,
)

__all__ = [
  'Head',
  'LanguageModel',
  'cast',
  'copy_layers',
  'count_parameters',
  'from_config',
  'from_pretrained',
  'logprobs',
  'mixture',
  'save_pretrained',
]
