"""Both Kullback-Leibler divergences of a compared pair."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions, mixtures


def forward(pair: distributions.Pair) -> jax.Array:
  """Returns KL(p || q), [...]."""
  infinite = (pair.p > 0) & (pair.log_q == -jnp.inf)
  fixed = distributions.fixed(pair)
  terms = mixtures.kl_terms(fixed.p, fixed.q, fixed.log_ratio)
  return distributions.reduce(
    pair,
    terms=jnp.where(infinite, jnp.inf, terms),
    by_log_q=-distributions.gap(pair),
    by_log_p=jnp.where(infinite, 0.0, pair.p * pair.log_ratio),
  )


def reverse(pair: distributions.Pair) -> jax.Array:
  """Returns KL(q || p), [...]."""
  infinite = (pair.q > 0) & (pair.log_p == -jnp.inf)
  fixed = distributions.fixed(pair)
  terms = mixtures.kl_terms(fixed.q, fixed.p, -fixed.log_ratio)
  return distributions.reduce(
    pair,
    terms=jnp.where(infinite, jnp.inf, terms),
    by_log_q=jnp.where(infinite, 0.0, -pair.q * pair.log_ratio),
    by_log_p=distributions.gap(pair),
  )
