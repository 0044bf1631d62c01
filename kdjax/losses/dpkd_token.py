"""Direct preference knowledge distillation by pairs of tokens."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions, preference
from kdjax.losses.sparse import check_whole


def dpkd_token(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  beta: jax.typing.ArrayLike = 0.1,
) -> jax.Array:
  """DPKD as its code trains it: one pair of tokens at every prefix.

  The loss of `dpkd` where y_c = argmax p and y_r = argmax q are next tokens
  (the lowest id among ties). Where they agree it is log 2, without gradient.
  Another algorithm than the paper's: nothing is sampled, the prefixes are the
  data's.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.8, 0.2], [0.2, 0.8]]))
  >>> print(round(float(dpkd_token(student, teacher, beta=0.5)), 4))
  1.6094

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V].
    beta: positive.

  Returns:
    [...] float32; NaN, without gradient, where a logit is NaN.

  Raises:
    TypeError: for a TopK, which may lack the student's best token.
    ValueError: if the vocabularies differ or beta is not positive.

  References:
    Li et al., 2024, https://arxiv.org/abs/2406.19774; its code,
    https://github.com/microsoft/LMOps/tree/main/dpkd.
  """
  check_whole('dpkd_token', teacher_logits)
  pair = distributions.compare(student_logits, teacher_logits)
  log_p, log_q = jnp.broadcast_arrays(pair.log_p, pair.log_q)
  best = log_p.argmax(-1, keepdims=True), log_q.argmax(-1, keepdims=True)
  of = lambda logs: [jnp.take_along_axis(logs, i, -1)[..., 0] for i in best]
  value = preference.dpkd(*of(log_q), *of(log_p), beta=beta)
  return jnp.where(pair.invalid, jnp.nan, value)
