"""The softmax in logarithms, safe at the edges of float32.

Everything here is float32 whatever the logits' type, and finite for any logits
but NaN: a logit of -inf has no mass, differences that overflow saturate at
3.3e38.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import numbers

# Log-probabilities saturate here. 3% above the lowest float32, so that a sum of
# them over a distribution that adds up to 1 + 1e-6 does not overflow.
LOWEST = -3.3e38


def per_token(value: jax.typing.ArrayLike) -> jax.Array:
  """Returns a scalar as it is, one value a token [...] as [..., 1]."""
  value = jnp.asarray(value, jnp.float32)
  return value[..., None] if value.ndim else value


def log_softmax(
  logits: jax.Array, temperature: jax.typing.ArrayLike = 1.0
) -> tuple[jax.Array, tuple[jax.Array, jax.Array], jax.Array]:
  """Returns log softmax(logits / T), its two normalisers, and where it is NaN.

  Differs from `jax.nn.log_softmax` at the edges: -inf stays -inf and has no
  gradient (neither has T through it), finite logits give finite values at any
  magnitude, and rows that hold a NaN read as uniform and are reported.

  Args:
    logits: [..., V].
    temperature: a positive scalar or [...].

  Returns:
    log-probabilities [..., V]; max(logits) and log sum exp((logits - max) / T),
    each [..., 1]; NaN rows [...].

  Raises:
    ValueError: if the temperature is a number and not positive.
  """
  if numbers.is_wrong(temperature, lambda x: x > 0):
    raise ValueError(
      f'temperature must be positive, got {temperature}. For the limit at 0, '
      'take cross_entropy against the argmax.'
    )
  logits = jnp.minimum(logits.astype(jnp.float32), -LOWEST)
  top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  invalid = jnp.isnan(top)
  logits = jnp.where(invalid, 0.0, logits)
  top = jnp.where(jnp.isfinite(top), top, 0.0)
  some = logits > -jnp.inf
  # Clipped before and after the temperature: no factor of the derivative by it
  # is infinite.
  scaled = _below(logits, top, some) * (1 / per_token(temperature))
  log_q, log_total = _normalize(scaled, some)
  return log_q, (top, log_total), invalid[..., 0]


def logsumexp(logits: jax.Array) -> jax.Array:
  """Returns log sum exp(logits), as safe as `log_softmax`.

  Args:
    logits: [..., V].

  Returns:
    [...] float32; -inf, without gradient, where all logits are, and NaN,
    without gradient, where one is.
  """
  _, (top, log_total), invalid = log_softmax(logits)
  none = jnp.all(logits == -jnp.inf, -1)
  value = jnp.where(none, -jnp.inf, (top + log_total)[..., 0])
  return jnp.where(invalid, jnp.nan, value)


@jax.custom_jvp
def _below(logits, top, some):
  """logits - top, 0 where there is no mass, finite everywhere."""
  return jnp.where(some, jnp.maximum(logits - top, LOWEST), 0.0)


@_below.defjvp
def _below_jvp(primals, tangents):
  return _below(*primals), jnp.where(primals[2], tangents[0], 0.0)


@jax.custom_jvp
def _normalize(scaled, some):
  """log softmax(scaled) over what has mass, and the log-partition."""
  scaled = jnp.where(some, jnp.maximum(scaled, LOWEST), -jnp.inf)
  total = jnp.exp(scaled).sum(-1, keepdims=True)
  log_total = jnp.log(jnp.where(total > 0, total, 1.0))
  return scaled - log_total, log_total


@_normalize.defjvp
def _normalize_jvp(primals, tangents):
  log_q, log_total = _normalize(*primals)
  mean = (jnp.exp(log_q) * tangents[0]).sum(-1, keepdims=True)
  return (log_q, log_total), (tangents[0] - mean, mean)
