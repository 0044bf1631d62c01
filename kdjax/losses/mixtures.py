"""The mixture m = beta p + (1 - beta) q of teacher p and student q."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses import distributions, numbers

# Beyond this, the smaller probability is 0 in float32 for any weight.
_FAR = 1e4


class Weight(NamedTuple):
  """The teacher's weight in the mixture, kept off the ends.

  Attributes:
    beta: [..., 1] or scalar, in (0, 1); 0.5 where the caller gave an end.
    rest: 1 - beta, by itself: beta = 1 - 1e-9 is 1 in float32.
    at_zero: [...] or scalar, where the caller gave 0.
    at_one: likewise for 1.
  """

  beta: jax.Array
  rest: jax.Array
  at_zero: jax.Array
  at_one: jax.Array


def weight(beta: jax.typing.ArrayLike, name: str = 'beta') -> Weight:
  """Returns a mixture weight.

  Within 1e-6 of 0 and 1 it has no gradient: there, float32 leaves no digit of
  the derivative by beta (those by the logits are exact).

  Args:
    beta: in [0, 1]; a scalar or one value a token [...], possibly traced.
    name: what the caller calls it, for the error.

  Raises:
    ValueError: if `beta` is a number outside [0, 1].
  """
  if numbers.is_wrong(beta, lambda x: 0 <= x <= 1):
    raise ValueError(f'{name} must be in [0, 1], got {beta}.')
  # Python and NumPy numbers are subtracted in float64, before the rounding.
  beta, rest = jnp.asarray(beta, jnp.float32), jnp.asarray(1 - beta, 'float32')
  tiny = jnp.finfo(jnp.float32).tiny
  at_zero, at_one = beta < tiny, rest < tiny
  end, flat = at_zero | at_one, (beta < 1e-6) | (rest < 1e-6)

  def inside(value):
    value = jnp.where(flat, jax.lax.stop_gradient(value), value)
    return distributions.per_token(jnp.where(end, 0.5, value))

  return Weight(inside(beta), inside(rest), at_zero, at_one)


def log_ratios(log_ratio: jax.Array, w: Weight) -> tuple[jax.Array, jax.Array]:
  """Returns log(p / m) / (1 - beta) and log(m / q) / beta.

  With d = log p - log q, the logarithms are -log(beta + (1 - beta) exp(-d)) and
  log(1 - beta + beta exp(d)), and their sum is d. Neither loses digits for any
  beta or d.

  Args:
    log_ratio: [..., V] d.
    w: the teacher's weight.
  """
  d = jnp.clip(log_ratio, -_FAR, _FAR)
  low = w.beta < 0.5
  log_beta = jnp.where(low, jnp.log(w.beta), jnp.log1p(-w.rest))
  log_rest = jnp.where(low, jnp.log1p(-w.beta), jnp.log(w.rest))
  # The larger share is taken out of the logarithm; the exponential is <= 1.
  student = d + (log_beta - log_rest) < 0
  share = jnp.where(student, w.beta / w.rest, w.rest / w.beta)
  log_more = jnp.log1p(share * jnp.exp(jnp.where(student, d, -d)))
  log_pm = jnp.where(student, d - log_rest - log_more, -log_beta - log_more)
  log_mq = jnp.where(student, log_rest + log_more, d + log_beta + log_more)
  small = jnp.abs(d) < distributions.SMALL
  x = jnp.where(small, d, 0.0)
  bend = _bend(x, w)
  # A beta of 1e-38 overflows; the probability beside it is 0 there.
  over_q = jnp.minimum(log_mq / w.beta, -distributions.LOWEST)
  return (
    jnp.where(small, x - w.beta * bend, log_pm / w.rest),
    jnp.where(small, x + w.rest * bend, over_q),
  )


def normalized_jsd(pair: distributions.Pair, w: Weight) -> jax.Array:
  """Returns JSD(beta) / (beta (1 - beta)), [...].

  The terms p log(p/m) / (1 - beta) - q log(m/q) / beta are homogeneous in
  (p, q), so that each of the two is itself a derivative of their sum. Where p
  and q nearly agree, that sum is a series.
  """
  fixed = distributions.fixed(pair)
  small = jnp.abs(fixed.log_ratio) < distributions.SMALL
  x = jnp.where(small, fixed.log_ratio, 0.0)
  slope = distributions.half_tanh(x)
  series = x * slope - (0.5 - (0.5 - w.beta) * slope) * _bend(x, w)
  terms = jnp.where(
    small, (fixed.p + fixed.q) * series, sum(_jsd_slopes(fixed, w))
  )
  return distributions.reduce(pair, terms, *_jsd_slopes(pair, w))


def _jsd_slopes(pair, w):
  over_m, over_q = log_ratios(pair.log_ratio, w)
  return -pair.q * over_q, pair.p * over_m


def kl_to_mixture(pair: distributions.Pair, w: Weight) -> jax.Array:
  """Returns KL(p || m), [...]."""
  fixed = distributions.fixed(pair)
  over_m, _ = log_ratios(fixed.log_ratio, w)
  terms = kl_terms(fixed.p, _mixed(fixed, w), w.rest * over_m)
  over_m, _ = log_ratios(pair.log_ratio, w)
  lean = w.rest * _lean(pair, w)
  by_log_q = -w.rest * lean * pair.q
  by_log_p = pair.p * (w.rest * over_m - w.beta * lean)
  return distributions.reduce(pair, terms, by_log_q, by_log_p)


def kl_of_student_to_mixture(pair: distributions.Pair, w: Weight) -> jax.Array:
  """Returns KL(q || m), [...]."""
  fixed = distributions.fixed(pair)
  _, over_q = log_ratios(fixed.log_ratio, w)
  terms = kl_terms(fixed.q, _mixed(fixed, w), -w.beta * over_q)
  _, over_q = log_ratios(pair.log_ratio, w)
  lean = w.beta * _lean(pair, w)
  by_log_q = pair.q * (w.rest * lean - w.beta * over_q)
  by_log_p = w.beta * lean * pair.p
  return distributions.reduce(pair, terms, by_log_q, by_log_p)


def kl_terms(p: jax.Array, q: jax.Array, log_ratio: jax.Array) -> jax.Array:
  """Returns p log(p/q) - p + q >= 0, whose sum is KL(p || q).

  Where p and q nearly agree, p log(p/q) alone is p times a small number of
  either sign, and the sum of those is rounding error.
  """
  small = jnp.abs(log_ratio) < distributions.SMALL
  x = jnp.where(small, log_ratio, 0.0)
  series = x * (1 / 120 - x * (1 / 720 - x / 5040))
  series = x * x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - series)))
  return jnp.where(small, p * series, p * log_ratio - (p - q))


def _mixed(pair, w):
  return w.beta * pair.p + w.rest * pair.q


def _lean(pair, w):
  """(p - q) / m."""
  mixed = _mixed(pair, w)
  return distributions.gap(pair) / jnp.where(mixed > 0, mixed, 1.0)


def _bend(x, w):
  """(log m - beta log p - (1 - beta) log q) / (beta (1 - beta)), x small.

  The cumulants of a Bernoulli variable over its variance; 7th order leaves
  1e-7 of x^2 / 2 at |x| = SMALL.
  """
  skew, var = w.rest - w.beta, w.beta * w.rest
  c7 = skew * (1 - var * (60 - 360 * var)) / 5040
  c6 = (1 - var * (30 - 120 * var)) / 720
  c5 = skew * (1 - 12 * var) / 120
  c4 = (1 - 6 * var) / 24
  c3 = skew / 6
  return x * x * (0.5 + x * (c3 + x * (c4 + x * (c5 + x * (c6 + x * c7)))))
