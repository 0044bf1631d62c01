"""Two softmax distributions over one vocabulary, safe to compare.

Everything here is float32 whatever the logits' type, and finite for any logits
but NaN: a logit of -inf has no mass, differences that overflow saturate at
3.3e38.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Log-probabilities saturate here. 3% above the lowest float32, so that a sum of
# them over a distribution that adds up to 1 + 1e-6 does not overflow.
LOWEST = -3.3e38

# Where |log p - log q| is below this, differences of the two are polynomials:
# closed forms lose half the digits of float32 there.
SMALL = 0.3


class Pair(NamedTuple):
  """A teacher's and a student's distribution, token by token.

  Attributes:
    log_p: [..., V] the teacher's log-probabilities, -inf where the logit is.
    log_q: [..., V] the student's.
    p: [..., V] the teacher's probabilities.
    q: [..., V] the student's.
    log_ratio: [..., V] log p - log q, finite; 0 where neither has mass.
    invalid: [...] True where a logit of the token is NaN. The other fields
      are well-defined there, so that no gradient is NaN.
  """

  log_p: jax.Array
  log_q: jax.Array
  p: jax.Array
  q: jax.Array
  log_ratio: jax.Array
  invalid: jax.Array


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
  if isinstance(temperature, int | float) and not temperature > 0:
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


def compare(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  temperature: jax.typing.ArrayLike = 1.0,
  weight: jax.typing.ArrayLike = 0.5,
) -> Pair:
  """Returns both distributions; no gradient reaches the teacher's logits.

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V].
    temperature: divides both; a positive scalar or [...].
    weight: of a mixture of the two, to check its shape here.

  Raises:
    ValueError: if the vocabularies differ in size or the other axes do not
      broadcast.
  """
  _check_shapes(student_logits, teacher_logits, temperature, weight)
  teacher_logits = jax.lax.stop_gradient(teacher_logits)
  log_q, (top_q, log_total_q), nan_q = log_softmax(student_logits, temperature)
  log_p, (top_p, log_total_p), nan_p = log_softmax(teacher_logits, temperature)
  ratio = jnp.maximum(log_p, LOWEST) - jnp.maximum(log_q, LOWEST)
  # Each log-probability is rounded to about 5e-7 by itself; where the models
  # nearly agree that is all there is. Their logits' difference is exact there.
  offset = top_p - top_q
  exact = teacher_logits.astype(jnp.float32)
  exact -= student_logits.astype(jnp.float32)
  exact = (exact - offset) / per_token(temperature)
  exact -= log_total_p - log_total_q
  close = (jnp.abs(offset) < 1) & (jnp.abs(exact - ratio) < 1e-3)
  ratio = jnp.where(close, exact, ratio)
  p, q = jnp.exp(log_p), jnp.exp(log_q)
  return Pair(log_p, log_q, p, q, ratio, nan_p | nan_q)


def fixed(pair: Pair) -> Pair:
  """Returns the pair as constants to the gradient."""
  return Pair(*map(jax.lax.stop_gradient, pair))


def gap(pair: Pair) -> jax.Array:
  """Returns p - q [..., V], to full relative precision."""
  small = jnp.abs(pair.log_ratio) < SMALL
  slope = half_tanh(jnp.where(small, pair.log_ratio, 0.0))
  return jnp.where(small, (pair.p + pair.q) * slope, pair.p - pair.q)


def half_tanh(x: jax.Array) -> jax.Array:
  """Returns tanh(x / 2) = (p - q) / (p + q) for |x| < SMALL."""
  y = x * x
  return x * (1 / 2 - y * (1 / 24 - y * (1 / 240 - y * (17 / 40320))))


def reduce(
  pair: Pair,
  terms: jax.Array,
  by_log_q: jax.Array,
  by_log_p: jax.Array,
) -> jax.Array:
  """Sums terms [..., V] over V, with the given derivatives.

  The derivatives are products that the forward pass computes anyway: the
  backward pass is one of them times the cotangent, and softmax's. They may
  themselves be differentiated.

  Args:
    pair: whose log-probabilities the gradient goes to.
    terms: the summands, computed from `fixed(pair)`: their own gradient, by a
      mixture's weight for one, is added.
    by_log_q: [..., V] the terms' derivative by log q.
    by_log_p: [..., V] that by log p, which only the temperature asks for.

  Returns:
    [...] float32; NaN without gradient where the pair is invalid.
  """
  terms = _sloped(terms, by_log_q, by_log_p, pair.log_q, pair.log_p)
  return jnp.where(pair.invalid, jnp.nan, terms.sum(-1))


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


@jax.custom_jvp
def _sloped(terms, by_log_q, by_log_p, log_q, log_p):
  del by_log_q, by_log_p, log_q, log_p
  return terms


# Symbolic zeros: no product with the derivative by log p unless a temperature
# is differentiated.
@functools.partial(_sloped.defjvp, symbolic_zeros=True)
def _sloped_jvp(primals, tangents):
  terms, by_log_q, by_log_p, _, _ = primals
  products = (
    (1.0, tangents[0]),
    (by_log_q, tangents[3]),
    (by_log_p, tangents[4]),
  )
  zero = jax.custom_derivatives.SymbolicZero
  used = [slope * t for slope, t in products if not isinstance(t, zero)]
  return terms, sum(used) if used else jnp.zeros_like(terms)


def _check_shapes(student_logits, teacher_logits, temperature, weight):
  student, teacher = jnp.shape(student_logits), jnp.shape(teacher_logits)
  if not student or not teacher or student[-1] != teacher[-1]:
    raise ValueError(
      'student_logits and teacher_logits must share one vocabulary on their '
      f'last axis, got shapes {student} and {teacher}. If one of them pads '
      "its embedding table, cut its logits to the tokenizer's size."
    )
  knobs = jnp.shape(temperature), jnp.shape(weight)
  try:
    tokens = jnp.broadcast_shapes(student[:-1], teacher[:-1])
    fits = jnp.broadcast_shapes(tokens, *knobs) == tokens
  except ValueError:
    fits = False
  if not fits:
    raise ValueError(
      'logits, temperature and mixture weight must broadcast to one value a '
      f'token, got shapes {student} and {teacher} of logits, {knobs[0]} of '
      f'temperature and {knobs[1]} of weight.'
    )
