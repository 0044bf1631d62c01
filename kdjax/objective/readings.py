"""What terms read: responses, and what the models say of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses, types


@types.struct
class View:
  """The responses of one draw, and what frozen models say of them.

  R rows: those of the batch, or each of them once a sample.

  Attributes:
    prompt: what the student reads, R rows.
    response: [R, T].
    ended: [R] bool, True where the response has an end-of-sequence token.
    teacher: [R, T, D] the teacher's hidden states, or None.
    teacher_layers: what was captured of the teacher's layers, or None.
    reference_logprobs: [R, T] float32 of the reference model, or None.
    rewards: [R, T] float32 by name, 0 off the mask.
  """

  prompt: types.Prompt
  response: types.Response
  ended: jax.Array
  teacher: Any = None
  teacher_layers: Any = None
  reference_logprobs: Any = None
  rewards: Any = None


@types.struct
class Target:
  """What a term is given about a whole batch, constant to the gradient.

  Attributes:
    mask: bool, which values count: [R, T] tokens, [R, S] prompt tokens or [R]
      pairs.
    values: advantages [R, T], or scores [R] to be regressed on; else None.
  """

  mask: jax.Array
  values: Any = None


class Reading(NamedTuple):
  """A view, and what the student makes of it now; of one micro-batch.

  Or of a chunk of its tokens, [N] in place of [R, T]: all that a loss which is
  `tokenwise` may ask for.

  Attributes:
    view: the responses.
    logits: [R, T, V] the student's.
    teacher_logits: [R, T, V], what is known of them (`types.TopK`), or None.
    layers: what was captured of the student's layers, or None.
    after: [R, T, D] the student's last hidden state after each token, or None.
  """

  view: View
  logits: jax.Array
  teacher_logits: Any = None
  layers: Any = None
  after: Any = None

  @property
  def mask(self) -> jax.Array:
    """[R, T] bool."""
    return self.view.response.mask

  @property
  def logprobs(self) -> jax.Array:
    """[R, T] log q(y_t), the student's."""
    return label_logprobs(self.logits, self.view.response)

  @property
  def teacher_logprobs(self) -> jax.Array:
    """[R, T] log p(y_t), the teacher's."""
    return label_logprobs(self.teacher_logits, self.view.response)

  def each(self, function: Callable[..., jax.Array], **args: Any) -> jax.Array:
    """Returns values [R, T] of a tokenwise function (reading, **args)."""
    return function(self, **args)


def label_logprobs(logits: jax.Array, response: types.Response) -> jax.Array:
  """Returns the log-probability of each token of a response; 0 off the mask."""
  scores = -losses.cross_entropy(logits, response.tokens)
  return jnp.where(response.mask, scores, 0.0)
