"""Losses: functions of arrays that return one float32 value a token.

They need jax alone, and know nothing of models, masks or data: reduce what they
return with `masked_mean`, or with (sum, count) pairs of your own.
"""

from kdjax.losses.cross_entropy import cross_entropy, soft_cross_entropy
from kdjax.losses.divergences import (
  DIVERGENCES,
  forward_kl,
  generalized_jsd,
  reverse_kl,
  skew_forward_kl,
  skew_reverse_kl,
  total_variation,
)
from kdjax.losses.f_divergences import GENERATORS, Generator, f_divergence
from kdjax.losses.masked import masked_mean, masked_sum

__all__ = [
  'DIVERGENCES',
  'GENERATORS',
  'Generator',
  'cross_entropy',
  'f_divergence',
  'forward_kl',
  'generalized_jsd',
  'masked_mean',
  'masked_sum',
  'reverse_kl',
  'skew_forward_kl',
  'skew_reverse_kl',
  'soft_cross_entropy',
  'total_variation',
]
