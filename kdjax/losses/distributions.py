"""Two softmax distributions over one vocabulary, safe to compare.

As in `softmax`, everything is float32 whatever the logits' type, and finite for
any logits but NaN.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses.softmax import LOWEST, log_softmax, per_token
from kdjax.losses.sparse import Teacher, coarsen

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


def compare(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  temperature: jax.typing.ArrayLike = 1.0,
  weight: jax.typing.ArrayLike = 0.5,
) -> Pair:
  """Returns both distributions; no gradient reaches the teacher's logits.

  Of a TopK those of k + 1 outcomes, see `sparse`; V is k + 1 then.

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    temperature: divides both; a positive scalar or [...].
    weight: of a mixture of the two, to check its shape here.

  Raises:
    ValueError: if the vocabularies differ in size, the other axes do not
      broadcast, or a TopK meets another temperature than 1.
  """
  if isinstance(teacher_logits, types.TopK):
    student_logits, teacher_logits = coarsen(
      student_logits, teacher_logits, temperature
    )
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
