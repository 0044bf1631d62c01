"""A teacher known by its likeliest tokens: `types.TopK` in place of logits.

What is compared then are the distributions of k + 1 outcomes, the k tokens and
'any other'. No f-divergence grows when outcomes are joined (the data-processing
inequality), so that its value is at most that of the whole distributions; it
rises with k, and is theirs at k = V.
"""

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses import numbers, softmax

# What a loss may be given of the teacher.
Teacher = jax.Array | types.TopK


def coarsen(
  student_logits: jax.Array,
  teacher: types.TopK,
  temperature: jax.typing.ArrayLike = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Student and teacher as logits of k + 1 outcomes, the last 'any other'.

  The student's are exact, and so is their gradient: its other tokens' own
  log-sum-exp stands for them. An id outside the vocabulary makes its token NaN;
  ids that repeat are not looked for, and would count twice.

  Args:
    student_logits: [..., V].
    teacher: [..., k] and [...], as `top_k` returns it.
    temperature: what the distributions are to be compared at.

  Returns:
    Two arrays [..., k + 1] float32.

  Raises:
    ValueError: if the shapes don't fit, or k < V and the temperature isn't 1,
      untraced. How much mass the other tokens would have at another one isn't
      known of the teacher.
  """
  size = student_logits.shape[-1]
  k = _check_top_k(student_logits, teacher)
  if k < size and not numbers.is_all(temperature, 1):
    raise ValueError(
      f'temperature is {temperature}, but a TopK of k={k} of {size} tokens '
      'says only at temperature 1 how much mass the others have: leave the '
      'temperature out, or give the logits of the teacher.'
    )
  tokens = jnp.broadcast_shapes(student_logits.shape[:-1], teacher.tail.shape)
  logits = jnp.broadcast_to(student_logits, (*tokens, size))
  ids = jnp.broadcast_to(teacher.ids, (*tokens, k))
  known = (ids >= 0) & (ids < size)
  index = jnp.where(known, ids, 0)
  named = jnp.take_along_axis(logits, index, -1).astype(jnp.float32)
  named = jnp.where(known, named, jnp.nan)
  others = log_sum_of_others(logits, index)
  # What rounding may have left of nothing.
  tail = jnp.full_like(teacher.tail, -jnp.inf) if k == size else teacher.tail
  theirs = (teacher.logprobs, tail[..., None])
  theirs = [x.astype(jnp.float32) for x in theirs]
  return (
    jnp.concatenate((named, others[..., None]), -1),
    jnp.concatenate(theirs, -1),
  )


def log_sum_of_others(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns log-sum-exp [...] of logits [..., V] but for `ids` [..., k].

  One pass over the logits, which are neither sorted nor gathered.
  """
  named = jnp.zeros(logits.shape, bool)
  named = jnp.put_along_axis(named, ids, True, -1, inplace=False)
  return softmax.logsumexp(jnp.where(named, -jnp.inf, logits))


def check_whole(name: str, teacher: Teacher) -> None:
  """Raises a TypeError for a TopK, where a loss reads each token's logit."""
  if isinstance(teacher, types.TopK):
    raise TypeError(
      f"{name} reads the teacher's logit of each token, which a TopK doesn't "
      'have: give all logits, or take a loss of DIVERGENCES or '
      'soft_cross_entropy.'
    )


def _check_top_k(student_logits, teacher):
  """Returns k."""
  student = jnp.shape(student_logits)
  ids, logprobs, tail = map(
    jnp.shape, (teacher.ids, teacher.logprobs, teacher.tail)
  )
  if not ids or ids != logprobs or ids[:-1] != tail:
    raise ValueError(
      'a TopK must hold ids and logprobs [..., k] and tail [...], got shapes '
      f'{ids}, {logprobs} and {tail}.'
    )
  if not student or not 1 <= ids[-1] <= student[-1]:
    raise ValueError(
      f'a TopK of k={ids[-1]} does not fit student_logits of shape {student}: '
      'k must be 1 to their vocabulary.'
    )
  return ids[-1]
