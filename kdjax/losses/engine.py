"""ENGINE: the student's expected energy under the teacher."""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions
from kdjax.losses.sparse import check_whole


def engine(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  straight_through: bool = False,
  temperature: jax.typing.ArrayLike = 1.0,
) -> jax.Array:
  """ENGINE's energy, the teacher's surprise at the student's choice.

  -sum_v q log p = KL(q || p) + H(q), differentiated through q.

  Meant for prefixes that the student decodes greedily. It isn't a divergence:
  without the entropy, its minimum is a student that puts all its mass on the
  teacher's best token, so that long training collapses.

  With `straight_through`, the value is that of the token the student chooses,
  -log p(argmax q) (the lowest id among ties), and the gradient is the same as
  without: q stands for its one-hot choice in the backward pass, one_hot + q -
  stop_gradient(q). A third form samples the tokens and takes log p(y_t) as a
  reward; use a policy gradient for it, as the sampled energy itself has no
  gradient.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.log(jnp.array([[0.4, 0.6], [0.25, 0.75]]))
  >>> print(round(float(engine(student, teacher)), 4))
  0.7271
  >>> print(round(float(engine(student, teacher, straight_through=True)), 4))
  0.2877

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V].
    straight_through: whether to value the student's choice alone.
    temperature: T, positive; a scalar or [...].

  Returns:
    [...] float32; +inf where the student has mass (or, with `straight_through`,
    its choice) and the teacher none, which adds no gradient.

  Raises:
    TypeError: for a TopK: the least energy may be any other token's.
    ValueError: if the vocabularies differ or T is not positive.

  References:
    Tu et al., 2020, https://arxiv.org/abs/2005.00850 (relaxed and
    straight-through outputs); Wen et al., 2023 (f-distill),
    https://arxiv.org/abs/2307.15190, section 4 (the soft form on the student's
    greedy responses, its baseline).
  """
  check_whole('engine', teacher_logits)
  pair = distributions.compare(student_logits, teacher_logits, temperature)
  chosen = pair.q
  if straight_through:
    best = pair.q.argmax(-1)
    chosen = jax.nn.one_hot(best, pair.q.shape[-1], dtype=jnp.float32)
  barred = pair.log_p == -jnp.inf
  energy = jnp.where(barred, 0.0, -pair.log_p)
  terms = jnp.where(barred & (chosen > 0), jnp.inf, chosen * energy)
  return distributions.reduce(
    pair,
    terms=jax.lax.stop_gradient(terms),
    by_log_q=pair.q * energy,
    by_log_p=jnp.where(barred, 0.0, -chosen),
  )
