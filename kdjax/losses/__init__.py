"""Losses: functions of arrays that return one float32 value a token or a pair.

They need jax alone, and know nothing of models, masks or data: reduce what they
return with `masked_mean`, or with (sum, count) pairs of your own.
"""

from kdjax.losses.adaptive_kl import adaptive_kl
from kdjax.losses.chunked import chunked, chunked_values
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
from kdjax.losses.dpkd_token import dpkd_token
from kdjax.losses.engine import engine
from kdjax.losses.f_divergences import GENERATORS, Generator, f_divergence
from kdjax.losses.features import (
  adversarial,
  attention_distance,
  combine_layers,
  cosine_distance,
  discriminator,
  discriminator_loss,
  generator_loss,
  hidden_distance,
  init_discriminator,
  init_projection,
)
from kdjax.losses.layer_selection import STRATEGIES, select_layers
from kdjax.losses.masked import masked_mean, masked_sum
from kdjax.losses.policy_gradient import (
  entropy,
  kl_estimate,
  policy_gradient,
  uniform_cross_entropy,
  weighted_reinforce,
)
from kdjax.losses.preference import (
  cpo,
  dpkd,
  dpo,
  implicit_reward,
  ipo,
  ranking,
  simpo,
)
from kdjax.losses.returns import (
  group_advantages,
  reward_to_go,
  sparse_reward,
  whiten,
)
from kdjax.losses.rewards import (
  action_values,
  bellman_reward,
  induced_reward,
  reverse_kl_reward,
  teacher_baseline,
)
from kdjax.losses.statistics import TokenStatistics, token_statistics
from kdjax.losses.step_mixture import (
  label_log_ratio,
  prefix_weights,
  step_mixture,
)
from kdjax.losses.top_k import chunked_top_k, top_k

__all__ = [
  'DIVERGENCES',
  'GENERATORS',
  'Generator',
  'STRATEGIES',
  'TokenStatistics',
  'action_values',
  'adaptive_kl',
  'adversarial',
  'attention_distance',
  'bellman_reward',
  'chunked',
  'chunked_top_k',
  'chunked_values',
  'combine_layers',
  'cosine_distance',
  'cpo',
  'cross_entropy',
  'discriminator',
  'discriminator_loss',
  'dpkd',
  'dpkd_token',
  'dpo',
  'engine',
  'entropy',
  'f_divergence',
  'forward_kl',
  'generalized_jsd',
  'generator_loss',
  'group_advantages',
  'hidden_distance',
  'implicit_reward',
  'induced_reward',
  'init_discriminator',
  'init_projection',
  'ipo',
  'kl_estimate',
  'label_log_ratio',
  'masked_mean',
  'masked_sum',
  'policy_gradient',
  'prefix_weights',
  'ranking',
  'reverse_kl',
  'reverse_kl_reward',
  'reward_to_go',
  'select_layers',
  'simpo',
  'skew_forward_kl',
  'skew_reverse_kl',
  'soft_cross_entropy',
  'sparse_reward',
  'step_mixture',
  'teacher_baseline',
  'token_statistics',
  'top_k',
  'total_variation',
  'uniform_cross_entropy',
  'weighted_reinforce',
  'whiten',
]
