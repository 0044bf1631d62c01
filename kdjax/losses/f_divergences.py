"""The textbook f-divergence: the slow twin that the others are tested by."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax.losses import distributions
from kdjax.losses.sparse import Teacher


@dataclasses.dataclass(frozen=True)
class Generator:
  """A convex function f on [0, inf) with f(1) = 0.

  Attributes:
    f: elementwise, in jax.numpy.
    slope: the limit of f(t) / t at infinity: the cost of a unit of mass that
      the teacher has where the student has none.
    at_zero: f(0): the cost of a unit of mass that the student has alone.
    far: q f(t) as a function of p, q and log t, for t above e^40, where f(t)
      overflows; None for p * slope.
  """

  f: Callable[[jax.Array], jax.Array]
  slope: float
  at_zero: float
  far: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


GENERATORS = {
  'kl': Generator(
    lambda t: t * jnp.log(t), math.inf, 0.0, lambda p, q, log_t: p * log_t
  ),
  'rkl': Generator(lambda t: -jnp.log(t), 0.0, math.inf),
  'js': Generator(
    lambda t: t * jnp.log(t) - (t + 1) * jnp.log((t + 1) / 2),
    math.log(2),
    math.log(2),
  ),
  'tvd': Generator(lambda t: jnp.abs(t - 1) / 2, 0.5, 0.5),
  'jeffreys': Generator(
    lambda t: (t - 1) * jnp.log(t),
    math.inf,
    math.inf,
    lambda p, q, log_t: (p - q) * log_t,
  ),
  'pearson_chi2': Generator(
    lambda t: (t - 1) ** 2,
    math.inf,
    1.0,
    lambda p, q, log_t: p * jnp.exp(log_t) - 2 * p + q,
  ),
  'squared_hellinger': Generator(
    lambda t: (jnp.sqrt(t) - 1) ** 2 / 2, 0.5, 0.5
  ),
}


# Where log t is above this, squares of t leave no room in float32.
_FAR = 40.0


def f_divergence(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  f: str | Generator | Callable[[jax.Array], jax.Array],
  *,
  temperature: jax.typing.ArrayLike = 1.0,
) -> jax.Array:
  """f-divergence of the teacher p from the student q.

  D_f(p || q) = sum_v q f(p / q), where a token without student mass costs
  p * lim f(t)/t, and one without teacher mass q f(0).

  By name: 'kl' (t log t) is forward_kl, 'rkl' (-log t) reverse_kl, 'tvd'
  (|t - 1| / 2) total_variation. 'js' (t log t - (t + 1) log((t + 1) / 2),
  f-distill's) is KL(p || m) + KL(q || m): twice generalized_jsd at beta = 0.5,
  and twice the loss that f-distill trains with.

  It works with probabilities, not their logarithms: a student's mass below
  1e-38 counts as none, where forward_kl still tells 200 nats from 300. So does,
  for a function without a name, mass below e^-40 of the teacher's.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(f_divergence(student, teacher, 'kl')), 4))
  0.1308
  >>> cubic = lambda t: t**3 - 1
  >>> print(round(float(f_divergence(student, teacher, cubic)), 4))
  0.75

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    f: a name in GENERATORS, a Generator, or a convex function with f(1) = 0,
      whose two limits are then read off its values at 1e-30, 1e15 and 1e30.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32.

  Raises:
    ValueError: if `f` is a string but not a known name, or as in forward_kl.

  References:
    Wen et al., 2023 (f-distill), https://arxiv.org/abs/2307.15190, section 3.
  """
  generator = _generator(f)
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  p, q = pair.p, pair.q
  both = (p > 0) & (q > 0)
  log_t = jnp.where(both, pair.log_ratio, 0.0)
  far = log_t > _FAR
  # No quotient p / q: the square of q in its derivative would be 0.
  t = jnp.exp(jnp.minimum(log_t, _FAR))
  terms = jnp.where(both & ~far, q * generator.f(t), 0.0)
  alone = (p > 0) & ~both
  if generator.far is None:
    alone |= far
  else:
    log_t = jnp.where(far, log_t, _FAR)
    terms += jnp.where(far, generator.far(p, q, log_t), 0.0)
  terms += _alone(p, alone, generator.slope)
  terms += _alone(q, (q > 0) & ~both, generator.at_zero)
  return jnp.where(pair.invalid, jnp.nan, terms.sum(-1))


def _alone(mass, where, cost):
  """`cost` times the mass that one side has alone; an infinite cost is flat."""
  if math.isinf(cost):
    return jnp.where(where, cost, 0.0)
  return jnp.where(where, mass * cost, 0.0)


def _generator(f):
  if isinstance(f, Generator):
    return f
  if callable(f):
    return _with_limits(f)
  if f not in GENERATORS:
    raise ValueError(
      f'f must be one of {sorted(GENERATORS)}, a Generator or a function, '
      f'got {f!r}.'
    )
  return GENERATORS[f]


def _with_limits(f):
  """Guesses f(0) and lim f(t) / t; a logarithm's growth counts as infinite."""
  with jax.ensure_compile_time_eval():
    zero, near_zero = (float(f(jnp.float32(t))) for t in (0.0, 1e-30))
    near, far = (float(f(jnp.float32(t))) / t for t in (1e15, 1e30))
  settled = abs(far - near) < 1e-3 * (1 + abs(near))  # False for NaN and inf.
  return Generator(
    f,
    slope=far if settled else math.inf,
    at_zero=near_zero if math.isnan(zero) else zero,
  )
