"""The mixture of teacher and student over responses, step by step."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions

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
    ValueError: if the vocabularies differ, or the shapes of labels or mask are
      not that of the logits without V.

  References:
    Wen et al., 2023 (f-distill), https://arxiv.org/abs/2307.15190, section 7
    (errata).
  """
  pair = distributions.compare(student_logits, teacher_logits)
  for name, array in (('labels', labels), ('mask', mask)):
    if jnp.shape(array) != pair.invalid.shape:
      raise ValueError(
        f'{name} must have the shape {pair.invalid.shape} of logits without '
        f'their last axis, got {jnp.shape(array)}.'
      )
  labels, mask = jnp.asarray(labels), jnp.asarray(mask, bool)
  known = mask & (labels >= 0) & (labels < pair.p.shape[-1]) & ~pair.invalid
  index = jnp.where(known, labels, 0)[..., None]
  ratio = jnp.take_along_axis(pair.log_ratio, index, -1)[..., 0]
  ratio = jnp.where(known, jnp.clip(ratio, -_FAR, _FAR), 0.0)
  before = jnp.pad(ratio[:, :-1], ((0, 0), (1, 0)))
  return jax.nn.sigmoid(jnp.cumsum(before, -1))
