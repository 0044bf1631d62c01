"""Sampling and search over any model that has `prefill` and `decode`.

`generate` samples, `speculate` samples the same with the help of a smaller
model, and `beam_search` searches.
"""

from kdjax.sampling.beam import beam_search
from kdjax.sampling.decode import generate
from kdjax.sampling.logits import (
  keep_min_p,
  keep_top_k,
  keep_top_p,
  sample,
  truncate,
)
from kdjax.sampling.speculative import speculate

__all__ = [
  'beam_search',
  'generate',
  'keep_min_p',
  'keep_top_k',
  'keep_top_p',
  'sample',
  'speculate',
  'truncate',
]
