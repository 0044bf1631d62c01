"""Responses that a student and its teacher sample, each read by the other."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from kdjax import sampling, types
from kdjax.models import api


class Drawn(NamedTuple):
  """A response to every prompt of a batch, on the devices.

  Attributes:
    prompt: [B, S], what the student reads.
    teacher_prompt: what the teacher reads; None for the student's.
    response: [B, T].
  """

  prompt: types.Prompt
  teacher_prompt: types.Prompt | None
  response: types.Response


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """A student and its teacher, sampled at temperature 1, nothing cut off.

  Attributes:
    student: any language model, as is the teacher.
    student_params: its parameters.
    teacher: what the student learns from.
    teacher_params: its parameters.
    max_new_tokens: T.
    seed: of the samples. Example and number of the sample select the rest: its
      batch doesn't matter.
    place: puts a tree of numpy arrays on devices; see `loop.Evaluator`.
  """

  student: api.LanguageModel
  student_params: api.Params
  teacher: api.LanguageModel
  teacher_params: api.Params
  max_new_tokens: int
  seed: int = 0
  place: Callable[[Any], Any] = lambda tree: tree

  @property
  def known(self) -> int:
    """How many ids both models know; no others are sampled."""
    return min(self.student.num_tokens, self.teacher.num_tokens)

  def draw(self, role: str, batch: types.Batch, count: int) -> Iterator[Drawn]:
    """Yields `count` samples of a role's responses to the prompts of a batch.

    One sample of the batch at a time: memory doesn't grow with their number.
    """
    theirs = batch.teacher_prompts[0] if batch.teacher_prompts else None
    prompt, theirs, ids = self.place((batch.prompt, theirs, batch.example_id))
    model, params, read = self.student, self.student_params, prompt
    if role == 'teacher':
      model, params = self.teacher, self.teacher_params
      read = theirs or prompt
    # One key for both roles: each has the same luck with an example.
    key = jax.random.key(self.seed)
    for i in range(count):
      response = sampling.generate(
        model,
        params,
        read,
        jax.random.fold_in(key, i),
        max_new_tokens=self.max_new_tokens,
        suppress_ids=tuple(range(self.known, model.num_tokens)),
        row_ids=ids,
      )
      yield Drawn(
        prompt, theirs, types.Response(response.tokens, response.mask)
      )
