"""Language models behind one protocol (`api.LanguageModel`)."""

from kdjax.models.api import Head, LanguageModel, logprobs
from kdjax.models.pretrained import (
  count_parameters,
  from_config,
  from_pretrained,
  save_pretrained,
)

__all__ = [
  'Head',
  'LanguageModel',
  'count_parameters',
  'from_config',
  'from_pretrained',
  'logprobs',
  'save_pretrained',
]
