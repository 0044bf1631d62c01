"""Sampling and search over any model that has `prefill` and `decode`."""

from kdjax.sampling.beam import beam_search
from kdjax.sampling.decode import generate
from kdjax.sampling.logits import (
  keep_min_p,
  keep_top_k,
  keep_top_p,
  sample,
  truncate,
)

__all__ = [
  'beam_search',
  'generate',
  'keep_min_p',
  'keep_top_k',
  'keep_top_p',
  'sample',
  'truncate',
]
