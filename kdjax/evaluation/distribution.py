"""How far the student's distribution lies from the teacher's."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses, types
from kdjax.models import api

DIVERGENCES: Mapping[str, Callable[..., jax.Array]] = {
  'forward_kl': losses.forward_kl,
  'reverse_kl': losses.reverse_kl,
  'jsd': losses.generalized_jsd,
}


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError for names that are not in DIVERGENCES."""
  unknown = [name for name in names if name not in DIVERGENCES]
  if unknown:
    raise ValueError(
      f'Unknown divergences {unknown}. Allowed: {", ".join(DIVERGENCES)}.'
    )


@functools.partial(jax.jit, static_argnames=('student', 'teacher', 'names'))
def token_divergences(
  student: api.LanguageModel,
  student_params: api.Params,
  teacher: api.LanguageModel,
  teacher_params: api.Params,
  prompt: types.Prompt,
  response: types.Response,
  *,
  teacher_prompt: types.Prompt | None = None,
  names: tuple[str, ...] = ('forward_kl', 'reverse_kl'),
) -> dict[str, jax.Array]:
  """Divergences along given responses: D(p_T, p_S)(. | x, y_<t) at every t.

  Both at temperature 1. The embedding tables may be padded to different sizes:
  only ids that both models know count, and both distributions are normalised
  over those.

  Args:
    student: static, as is `teacher`.
    student_params: its parameters.
    teacher: what it is compared with.
    teacher_params: its parameters.
    prompt: [B, S], what the student reads, and the teacher unless it has a
      `teacher_prompt` of its own.
    response: [B, T] gold or sampled, the prefixes that both are judged on.
    teacher_prompt: what the teacher reads instead of `prompt`.
    names: which of DIVERGENCES.

  Returns:
    For each name values [B, T] float32, 0 where `response.mask` is False.
  """
  hidden = (
    student.hidden_states(student_params, prompt, response.tokens),
    teacher.hidden_states(
      teacher_params, teacher_prompt or prompt, response.tokens
    ),
  )
  known = min(student.num_tokens, teacher.num_tokens)

  def each(student_logits, teacher_logits):
    logits = student_logits, teacher_logits
    return {name: DIVERGENCES[name](*logits) for name in names}

  return losses.chunked_values(
    each,
    hidden[0],
    student.output_head(student_params).first(known),
    hidden[1],
    teacher.output_head(teacher_params).first(known),
    mask=response.mask,
  )


def sequence_divergences(
  student: api.LanguageModel,
  student_params: api.Params,
  teacher: api.LanguageModel,
  teacher_params: api.Params,
  prompt: types.Prompt,
  response: types.Response,
  **options: Any,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Sums of `token_divergences`, which has the same arguments, over a response.

  Returns:
    For each name the pair (sum, count), both [B] float32.
  """
  models = student, student_params, teacher, teacher_params
  values = token_divergences(*models, prompt, response, **options)
  count = response.mask.sum(-1).astype(jnp.float32)
  return {name: (x.sum(-1), count) for name, x in values.items()}
