"""The mixture of teacher and student over responses, step by step."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions
from kdjax.losses.sparse import check_whole

# Beyond this a prefix is impossible under one of the two; 1e8 such tokens still
# add up to a finite number.
_FAR = 1e30


def step_mixture(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """Teacher's weight in the next token's mixture, exact for whole responses.

  w_t = p(y_<t) / (p(y_<t) + q(y_<t)) = sigmoid(log p(y_<t) - log q(y_<t)): the
  mixture m(y) = (p(y) + q(y)) / 2 of responses has the next-token distribution
  m(v | y_<t) = w_t p(v | y_<t) + (1 - w_t) q(v | y_<t). With it the
  Jensen-Shannon divergence of responses is a sum over steps; with f-distill's
  plain average, w_t = 1/2, it is not. Both sides of it:

    1/2 skew_forward_kl(..., alpha=w)      on the teacher's responses y ~ p
    1/2 skew_reverse_kl(..., alpha=1 - w)  on the student's responses y ~ q

  The gradient flows through w to the student's logits, and must: on the
  teacher's responses the loss has exactly the gradient of KL(p || m). None
  reaches the teacher. Not for temperatures other than 1, which are those of
  other models.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[[0.5, 0.5]], [[0.25, 0.75]]]))
  >>> student, teacher = (x.repeat(3, 0)[None] for x in (student, teacher))
  >>> labels, mask = jnp.array([[1, 1, 0]]), jnp.array([[True, True, False]])
  >>> print(step_mixture(student, teacher, labels, mask))
  [[0.5       0.6       0.6923077]]

  Args:
    student_logits: [B, T, V].
    teacher_logits: [B, T, V].
    labels: [B, T] integers, the responses.
    mask: [B, T] bool.

  Returns:
    [B, T] float32 in [0, 1], 1/2 at the first token. A token that the mask
    drops, that is outside the vocabulary, whose logits hold a NaN, or that
    neither model can say leaves the weights after it as they are.

  Raises:
    TypeError: for a TopK, which may lack labels.
    ValueError: if the vocabularies differ, or the shapes of labels or mask are
      not that of the logits without V.

  References:
    Wen et al., 2023 (f-distill), https://arxiv.org/abs/2307.15190, section 7
    (errata).
  """
  for name, array in (('labels', labels), ('mask', mask)):
    if jnp.shape(array) != student_logits.shape[:-1]:
      raise ValueError(
        f'{name} must have the shape {student_logits.shape[:-1]} of logits '
        f'without their last axis, got {jnp.shape(array)}.'
      )
  ratio = label_log_ratio(student_logits, teacher_logits, labels)
  return prefix_weights(ratio, jnp.asarray(mask, bool))


def label_log_ratio(
  student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
  """Log-ratio of both models' probabilities of the labels.

  log p(label) - log q(label), within ±1e30; 0 for a label outside the
  vocabulary, that neither model can say, or whose logits hold a NaN. No
  gradient reaches the teacher.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(label_log_ratio(student, teacher, jnp.array(1)).round(4))
  0.4055

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V].
    labels: [...] integers.

  Returns:
    [...] float32.

  Raises:
    TypeError: for a TopK, which may lack the label.
    ValueError: if the vocabularies differ.
  """
  check_whole('label_log_ratio', teacher_logits)
  pair = distributions.compare(student_logits, teacher_logits)
  labels = jnp.asarray(labels)
  known = (labels >= 0) & (labels < pair.p.shape[-1]) & ~pair.invalid
  index = jnp.where(known, labels, 0)[..., None]
  ratio = jnp.take_along_axis(pair.log_ratio, index, -1)[..., 0]
  return jnp.where(known, jnp.clip(ratio, -_FAR, _FAR), 0.0)


def prefix_weights(log_ratio: jax.Array, mask: jax.Array) -> jax.Array:
  """Teacher's weight among two equally likely authors of what was said so far.

  w_t = sigmoid(sum_{t' < t} log_ratio_t'): `step_mixture` of `label_log_ratio`.

  Args:
    log_ratio: [B, T] log p(y_t) - log q(y_t).
    mask: [B, T] bool; what it drops leaves the weights as they are.

  Returns:
    [B, T] float32 in [0, 1], 1/2 at the first token.
  """
  ratio = jnp.where(mask, log_ratio, 0.0)
  before = jnp.pad(ratio[:, :-1], ((0, 0), (1, 0)))
  return jax.nn.sigmoid(jnp.cumsum(before, -1))
