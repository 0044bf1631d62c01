"""Adaptive KL: forward KL for the teacher's head, reverse KL for its tail."""

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses import distributions, kl, numbers
from kdjax.losses.sparse import Teacher

ArrayLike = jax.typing.ArrayLike


def adaptive_kl(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  mu: ArrayLike = 0.5,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Adaptive KL, which mixes both KLs by where the student errs.

  AKL = g_head / g KL(p || q) + g_tail / g KL(q || p), where g_head and g_tail
  sum |p - q| over the teacher's head and tail, and g = g_head + g_tail. The
  weights are constants to the gradient; where g is 0, so is the value.

  The head is the teacher's likeliest tokens until their mass reaches mu: the
  tokens with less than mu of p above them, and all that tie with the last of
  those, so that the order of the vocabulary doesn't matter. The token that
  crosses mu is in it. mu = 0 leaves all to the tail. The other tokens of a TopK
  come after its own; the value of its k + 1 outcomes bounds nothing, as the
  weights of the KLs are theirs too.

  Elsewhere: DSKD sums p from the smallest up and calls tail what stays below
  its alpha: mu = 1 - alpha, but for ties. The authors' code leaves the token
  that crosses mu to the tail, unless it is the first.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(adaptive_kl(student, teacher)), 4))
  0.1373

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    mu: the head's mass, in [0, 1]; a scalar or [...], may be traced.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; +inf where a KL of positive weight is.

  Raises:
    ValueError: if the vocabularies differ, T is not positive, or mu is a number
      outside [0, 1].

  References:
    Wu et al., 2024, https://arxiv.org/abs/2404.02657 (AKL).
  """
  if numbers.is_wrong(mu, lambda x: 0 <= x <= 1):
    raise ValueError(f'mu must be in [0, 1], got {mu}.')
  pair = distributions.compare(student_logits, teacher_logits, temperature, mu)
  fixed = distributions.fixed(pair)
  gap = jnp.abs(distributions.gap(fixed))
  joined = isinstance(teacher_logits, types.TopK)
  head = _head_of_joined(fixed.p, mu) if joined else _head(fixed.p, mu)
  g_head = jnp.where(head, gap, 0.0).sum(-1)
  g_tail = jnp.where(head, 0.0, gap).sum(-1)
  value = _share(g_head, g_tail, kl.forward(pair))
  value += _share(g_tail, g_head, kl.reverse(pair))
  return jnp.where(pair.invalid, jnp.nan, value)


def _head(p, mu):
  """Whether a token is among the likeliest that hold mu of p, [..., V]."""
  descending = -jnp.sort(-p, axis=-1)
  above = jnp.cumsum(descending, -1) - descending
  inside = above < distributions.per_token(mu)
  least = jnp.where(inside, descending, jnp.inf).min(-1, keepdims=True)
  return p >= least


def _head_of_joined(p, mu):
  """`_head` where the last outcome is all other tokens, each less likely."""
  named = p[..., :-1]
  short = named.sum(-1, keepdims=True) < distributions.per_token(mu)
  return jnp.concatenate((_head(named, mu), short), -1)


def _share(part, rest, value):
  """value part / (part + rest), 0 where the part is though the value is inf."""
  none = part == 0
  return jnp.where(none, 0.0, part / jnp.where(none, 1.0, part + rest) * value)
