"""Divergences between a teacher's and a student's next-token distributions.

Each takes logits [..., V] and returns one float32 value a token [...]. In every
formula p = softmax(teacher_logits / T) and q = softmax(student_logits / T); no
gradient reaches the teacher. There is no T^2 factor (Hinton et al., 2015,
section 2.1): multiply the value where a recipe wants it.

At the edges: 0 log 0 is 0, a probability below the smallest normal float32
(1e-38) counts as no mass, and the value is +inf exactly where the divergence
is; an infinite summand adds no gradient. A token whose logits hold a NaN has
the value NaN and the gradient 0, so that a mask over values is enough.

The teacher may be a `types.TopK` in place of logits: the value is then that of
k + 1 outcomes, see `sparse`, and T must be 1 unless k = V.

To add one: write a function of this signature, and its line in DIVERGENCES.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions, kl, mixtures
from kdjax.losses.adaptive_kl import adaptive_kl
from kdjax.losses.sparse import Teacher

ArrayLike = jax.typing.ArrayLike


def forward_kl(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Forward Kullback-Leibler divergence, which covers the teacher's modes.

  KL(p || q) = sum_v p log(p / q). Its gradient by the student's logits is
  (q - p) / T.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(forward_kl(student, teacher)), 4))
  0.1308

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; +inf where the teacher has mass and the student has none.

  Raises:
    ValueError: if the vocabularies differ or T is not positive.

  References:
    Hinton et al., 2015, https://arxiv.org/abs/1503.02531, section 2 (soft
    targets, up to the teacher's entropy); Kim & Rush, 2016,
    https://arxiv.org/abs/1606.07947, section 3.1 (word-level distillation).
  """
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  return kl.forward(pair)


def reverse_kl(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Reverse Kullback-Leibler divergence, which seeks the teacher's modes.

  KL(q || p) = sum_v q log(q / p), differentiated through all of q.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(reverse_kl(student, teacher)), 4))
  0.1438

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; +inf where the student has mass and the teacher has none.

  Raises:
    ValueError: if the vocabularies differ or T is not positive.

  References:
    Gu et al., 2024 (MiniLLM), https://arxiv.org/abs/2306.08543, section 2.1
    (one step of it); Wen et al., 2023 (f-distill),
    https://arxiv.org/abs/2307.15190, section 3.
  """
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  return kl.reverse(pair)


def total_variation(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Total variation distance, in [0, 1].

  TV(p, q) = 1/2 sum_v |p - q|. f-distill writes 1/4 on each of two sources of
  prefixes: half of this on either.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(total_variation(student, teacher)), 4))
  0.25

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32.

  Raises:
    ValueError: if the vocabularies differ or T is not positive.

  References:
    Wen et al., 2023 (f-distill), https://arxiv.org/abs/2307.15190, section 3.
  """
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  fixed = distributions.fixed(pair)
  half_sign = 0.5 * jnp.sign(fixed.log_ratio)
  return distributions.reduce(
    pair,
    terms=half_sign * distributions.gap(fixed),
    by_log_q=-half_sign * pair.q,
    by_log_p=half_sign * pair.p,
  )


def generalized_jsd(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  beta: ArrayLike = 0.5,
  temperature: ArrayLike = 1.0,
  normalized: bool = False,
) -> jax.Array:
  """Generalised Jensen-Shannon divergence, between forward and reverse KL.

  JSD(beta) = beta KL(p || m) + (1 - beta) KL(q || m), where
  m = beta p + (1 - beta) q.

  `beta` is the teacher's weight in m, as in GKD and TRL; 0 is forward KL and 1
  reverse KL. The formula itself vanishes at both ends: near them it is beta
  (or 1 - beta) times a KL, and at exactly 0 and 1 it jumps to the KL, TRL's
  rule. With `normalized`, the value is JSD(beta) / (beta (1 - beta)), which
  tends to the two KLs: a sweep over beta then doesn't change the step size too.

  Elsewhere: DistiLLM's `lam` and KDFlow's `jsd_beta` are the student's weight
  (1 - beta), so is f-distill's beta: its published 0.85 and 0.25 are 0.15 and
  0.75 here.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(generalized_jsd(student, teacher, beta=0.1)), 4))
  0.0118
  >>> scaled = generalized_jsd(student, teacher, beta=0.1, normalized=True)
  >>> print(round(float(scaled), 4))
  0.1315

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    beta: in [0, 1]; a scalar or [...], may be traced.
    temperature: T, positive; a scalar or [...].
    normalized: whether to divide by beta (1 - beta).

  Returns:
    [...] float32; finite but at the two ends, where the KLs' rules hold.

  Raises:
    ValueError: if the vocabularies differ, T is not positive, or beta is a
      number outside [0, 1].

  References:
    Agarwal et al., 2024 (GKD), https://arxiv.org/abs/2306.13649, equation 1.
  """
  w = mixtures.weight(beta)
  pair = distributions.compare(
    student_logits, teacher_logits, temperature, beta
  )

  def inside():
    value = mixtures.normalized_jsd(pair, w)
    return value if normalized else _scalar(w.beta * w.rest) * value

  return _at_ends(
    beta, w, inside, lambda: kl.forward(pair), lambda: kl.reverse(pair)
  )


def skew_forward_kl(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  alpha: ArrayLike = 0.1,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Skew forward KL: forward KL to a mixture that holds some of the teacher.

  SKL(alpha) = KL(p || alpha p + (1 - alpha) q), at most -log(alpha).

  alpha = 0 is forward KL. DistiLLM's code returns the cross-entropy part: the
  same gradient, a value that is larger by the teacher's entropy.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(skew_forward_kl(student, teacher)), 4))
  0.107

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    alpha: the weight in [0, 1] of the first argument in the second; a scalar or
      [...], may be traced.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; finite but at alpha = 0, where forward KL's rule holds.

  Raises:
    ValueError: if the vocabularies differ, T is not positive, or alpha is a
      number outside [0, 1].

  References:
    Ko et al., 2024 (DistiLLM), https://arxiv.org/abs/2402.03898, section 3.1.
  """
  w = mixtures.weight(alpha, 'alpha')
  pair = distributions.compare(
    student_logits, teacher_logits, temperature, alpha
  )

  return _at_ends(
    alpha,
    w,
    lambda: mixtures.kl_to_mixture(pair, w),
    lambda: kl.forward(pair),
    lambda: _nothing(pair),
  )


def skew_reverse_kl(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  alpha: ArrayLike = 0.1,
  temperature: ArrayLike = 1.0,
) -> jax.Array:
  """Skew reverse KL: reverse KL to a mixture that holds some of the student.

  SRKL(alpha) = KL(q || (1 - alpha) p + alpha q), at most -log(alpha).

  alpha = 0 is reverse KL. The gradient goes through the student in the mixture
  too, as in DistiLLM; DistiLLM-2's code stops it there.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(skew_reverse_kl(student, teacher)), 4))
  0.1131

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    alpha: the weight in [0, 1] of the first argument in the second; a scalar or
      [...], may be traced.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; finite but at alpha = 0, where reverse KL's rule holds.

  Raises:
    ValueError: if the vocabularies differ, T is not positive, or alpha is a
      number outside [0, 1].

  References:
    Ko et al., 2024 (DistiLLM), https://arxiv.org/abs/2402.03898, section 3.1.
  """
  w = mixtures.weight(alpha, 'alpha')
  # To the mixture, alpha is the student's weight.
  flipped = w._replace(beta=w.rest, rest=w.beta)
  pair = distributions.compare(
    student_logits, teacher_logits, temperature, alpha
  )

  return _at_ends(
    alpha,
    w,
    lambda: mixtures.kl_of_student_to_mixture(pair, flipped),
    lambda: kl.reverse(pair),
    lambda: _nothing(pair),
  )


DIVERGENCES = {
  'forward_kl': forward_kl,
  'reverse_kl': reverse_kl,
  'total_variation': total_variation,
  'generalized_jsd': generalized_jsd,
  'skew_forward_kl': skew_forward_kl,
  'skew_reverse_kl': skew_reverse_kl,
  'adaptive_kl': adaptive_kl,
}


def _nothing(pair):
  return jnp.where(pair.invalid, jnp.nan, 0.0)


def _scalar(value):
  """Undoes `per_token`."""
  return value[..., 0] if value.ndim else value


def _at_ends(given, w, inside, at_zero, at_one):
  """Chooses between the inside and the ends; a plain number needs only one."""
  if isinstance(given, int | float):
    if given == 0:
      return at_zero()
    return at_one() if given == 1 else inside()
  value = jnp.where(w.at_zero, at_zero(), inside())
  return jnp.where(w.at_one, at_one(), value)
