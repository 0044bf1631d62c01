"""Cross-entropy with hard and with soft labels, one value a token."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions
from kdjax.losses.sparse import Teacher


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Negative log-likelihood of the labels.

  -log softmax(logits)[label].

  A label outside [0, V), such as the -100 or -1 that marks padding elsewhere,
  names no token: its value is +inf and its gradient 0, and it is never wrapped
  around to the end of the vocabulary. Mask it.

  >>> import jax.numpy as jnp
  >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(cross_entropy(logits, jnp.array([0, 0])).round(4))
  [0.6931 1.3863]

  Args:
    logits: [..., V].
    labels: [...] integers.

  Returns:
    [...] float32; +inf where the label's logit is -inf.

  Raises:
    TypeError: if the labels are not integers.
    ValueError: if the labels' shape is not that of the logits without V.

  References:
    Kim & Rush, 2016, https://arxiv.org/abs/1606.07947, section 2 (the negative
    log-likelihood; on a teacher's responses, section 3.2's SeqKD).
  """
  labels = jnp.asarray(labels)
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise TypeError(f'labels must be integers, got {labels.dtype}.')
  if labels.shape != logits.shape[:-1]:
    raise ValueError(
      f'labels must have the shape {logits.shape[:-1]} of logits without '
      f'their last axis, got {labels.shape}.'
    )
  log_q, _, invalid = distributions.log_softmax(logits)
  known = (labels >= 0) & (labels < logits.shape[-1])
  index = jnp.where(known, labels, 0)[..., None]
  value = -jnp.take_along_axis(log_q, index, -1)[..., 0]
  value = jnp.where(known, value, jnp.inf)
  return jnp.where(invalid, jnp.nan, value)


def soft_cross_entropy(
  student_logits: jax.Array,
  teacher_logits: Teacher,
  *,
  temperature: jax.typing.ArrayLike = 1.0,
) -> jax.Array:
  """Cross-entropy of the student under the teacher's distribution.

  -sum_v p log q = KL(p || q) + H(p), with p = softmax(teacher_logits / T) and
  q = softmax(student_logits / T): forward KL's gradient, and a value that the
  teacher's entropy bounds from below. No T^2 factor, none to the teacher. Of a
  TopK that of k + 1 outcomes, which is no more; see `sparse`.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(round(float(soft_cross_entropy(student, teacher)), 4))
  0.6931

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V], or a TopK.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; +inf where the teacher has mass and the student has none.

  Raises:
    ValueError: if the vocabularies differ or T is not positive.

  References:
    Hinton et al., 2015, https://arxiv.org/abs/1503.02531, section 2.
  """
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  infinite = (pair.p > 0) & (pair.log_q == -jnp.inf)
  surprise = -pair.p * jnp.maximum(pair.log_q, distributions.LOWEST)
  terms = jnp.where(infinite, jnp.inf, surprise)
  return distributions.reduce(
    pair,
    terms=jax.lax.stop_gradient(terms),
    by_log_q=-pair.p,
    by_log_p=jnp.where(infinite, 0.0, surprise),
  )
