"""Losses of hidden states, which never hold the logits of all tokens.

The output head turns hidden states [..., D] into logits [..., V], by far the
largest array of a step. Here tokens go through head and loss in chunks.

`chunked` is told each token's weight beforehand and forms all gradients during
the forward pass, at no recomputation. `chunked_values` isn't, and projects a
second time where it is differentiated.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses import chunks
from kdjax.losses.numbers import number
from kdjax.losses.sparse import Teacher


def chunked(
  loss: Callable[..., Any],
  student_hidden: jax.Array,
  student_head: types.Head,
  teacher_hidden: Teacher | None = None,
  teacher_head: types.Head | None = None,
  *,
  weights: Any,
  labels: jax.Array | None = None,
  mask: jax.Array | None = None,
  args: Mapping[str, jax.typing.ArrayLike] | None = None,
  chunk_size: int | None = None,
  batch_axes: tuple[str, ...] = (),
) -> tuple[jax.Array, Any]:
  """Weighted sum of a loss over tokens, from hidden states and output heads.

  sum_bt weights_bt loss(student_head(h_bt), teacher_head(g_bt)).

  The same as `loss` on the logits [B, T, V], without holding them: tokens are
  taken `chunk_size` at a time, and the gradients of the student's hidden
  states, head and `args` are formed on the way. For that, weights must be
  complete: mask times normaliser times, for a policy gradient, the advantage.

  >>> import jax.numpy as jnp
  >>> from kdjax.losses import cross_entropy, forward_kl
  >>> head = types.Head(jnp.eye(2))
  >>> student, teacher = jnp.log(jnp.array([[[0.5, 0.5]], [[0.25, 0.75]]]))
  >>> total, each = chunked(
  ...   forward_kl, student, head, teacher, head, weights=jnp.ones(1)
  ... )
  >>> print(total.round(4), each.round(4))
  0.1308 [0.1308]

  Args:
    loss: of (student's logits [N, V], teacher's logits [N, V], **args), without
      a teacher of (logits [N, V], labels [N], **args); returns values [N], or a
      tree of such.
    student_hidden: [..., D].
    student_head: turns them into logits.
    teacher_hidden: [..., D'], or None. No gradient reaches the teacher. Or a
      TopK [..., k] in place of both, which the loss is then given.
    teacher_head: the teacher's; both heads have the same V.
    weights: [...], constant to the gradient; a tree of such where values are.
    labels: [...] integers. Read where there is no teacher, and by a loss whose
      second parameter is called `labels`.
    mask: [...] bool; by default, where a weight is not 0. Other tokens are
      skipped: their values are 0, whatever stands there.
    args: keyword arguments of the loss: numbers, and arrays, scalars or [...],
      which are differentiated too. (What the loss closes over is not.)
    chunk_size: tokens of a chunk; by default what `chunks.CHUNK_BYTES` and
      `chunks.CHUNK_TOKENS` have room for.
    batch_axes: axes of `jax.set_mesh`'s mesh over which the first axis of the
      arrays is split. Each device then takes its own tokens.

  Returns:
    The sum, float32, or the sum over all values of a tree; and the values
    [...], without a gradient.

  Raises:
    ValueError: if shapes don't match, or the heads' vocabularies differ.

  References:
    Agarwal et al., 2024 (GKD), https://arxiv.org/abs/2306.13649, equation 2, is
    such a sum.
  """
  shape = student_hidden.shape[:-1]
  student = student_hidden, student_head
  teacher = teacher_hidden, teacher_head
  inputs, run = _problem(loss, student, teacher, labels, args)
  flat = lambda x: _flat('weights', x, shape).astype(jnp.float32)
  weights = jax.lax.stop_gradient(jax.tree.map(flat, weights))
  if mask is None:
    kept = sum(weight != 0 for weight in jax.tree.leaves(weights)) > 0
  else:
    kept = _flat('mask', mask, shape).astype(bool)
  vocab_size = student_head.kernel.shape[1]
  plan = chunks.make_plan(shape, vocab_size, chunk_size, batch_axes)
  total, (values, _) = chunks.weighted(run, plan, inputs, weights, kept)
  values = jax.lax.stop_gradient(values)
  return total, jax.tree.map(lambda x: x.reshape(shape), values)


def chunked_values(
  loss: Callable[..., Any],
  student_hidden: jax.Array,
  student_head: types.Head,
  teacher_hidden: Teacher | None = None,
  teacher_head: types.Head | None = None,
  *,
  mask: jax.Array,
  labels: jax.Array | None = None,
  args: Mapping[str, jax.typing.ArrayLike] | None = None,
  chunk_size: int | None = None,
  batch_axes: tuple[str, ...] = (),
) -> Any:
  """Values of a loss, one a token, from hidden states and output heads.

  For losses that aren't a weighted sum over tokens, such as those of a
  response's whole likelihood. The gradient goes through head and loss a
  second time.

  >>> import jax.numpy as jnp
  >>> from kdjax.losses import cross_entropy
  >>> head, hidden = types.Head(jnp.eye(2)), jnp.log(jnp.array([[0.5, 0.5]]))
  >>> labels, mask = jnp.array([0]), jnp.array([True])
  >>> print(chunked_values(
  ...   cross_entropy, hidden, head, labels=labels, mask=mask
  ... ).round(4))
  [0.6931]

  Args:
    loss: see `chunked`.
    student_hidden: [..., D].
    student_head: turns them into logits.
    teacher_hidden: [..., D'], or None; or a TopK in place of both.
    teacher_head: the teacher's.
    mask: [...] bool; values are 0 elsewhere.
    labels: see `chunked`.
    args: see `chunked`.
    chunk_size: see `chunked`.
    batch_axes: see `chunked`.

  Returns:
    [...] float32, or a tree of such.

  Raises:
    ValueError: if shapes don't match, or the heads' vocabularies differ.
  """
  shape = student_hidden.shape[:-1]
  student = student_hidden, student_head
  teacher = teacher_hidden, teacher_head
  inputs, run = _problem(loss, student, teacher, labels, args)
  kept = _flat('mask', mask, shape).astype(bool)
  vocab_size = student_head.kernel.shape[1]
  plan = chunks.make_plan(shape, vocab_size, chunk_size, batch_axes)
  values = chunks.valued(run, plan, inputs, kept)
  return jax.tree.map(lambda x: x.reshape(shape), values)


def _problem(loss, student, teacher, labels, args):
  """Returns the flat inputs of both entries, and what runs on a chunk."""
  hidden, head = student
  shape = hidden.shape[:-1]
  tokens, shared = {}, {}
  _check_width('student', hidden, head)
  known = isinstance(teacher[0], types.TopK)
  if known:
    _check_known(shape, teacher)
    flat = lambda x: x.reshape(-1, *x.shape[len(shape) :])
    tokens['teacher'] = jax.tree.map(flat, teacher[0])
  elif teacher[0] is not None:
    _check_teacher(student, teacher)
    tokens['teacher'] = teacher[0].reshape(-1, teacher[0].shape[-1])
    shared['teacher'] = teacher[1]
  if labels is not None:
    tokens['labels'] = _flat('labels', labels, shape)
  args = args or {}
  # Numbers stay numbers: losses check them, and need not prepare for others.
  numbers = {k: n for k, x in args.items() if (n := number(x)) is not None}
  args = {
    k: _flat(k, x, shape).astype(jnp.float32)
    for k, x in args.items()
    if k not in numbers
  }
  by_labels = teacher[0] is None or _takes_labels(loss)
  if by_labels and labels is None:
    raise ValueError(
      'the loss compares logits with labels, but labels is None: give them, or '
      'teacher_hidden and teacher_head.'
    )

  def run(hidden, head, args, tokens, shared):
    other = tokens['labels' if by_labels else 'teacher']
    if not (by_labels or known):
      other = shared['teacher'].logits(other)
    values = loss(head.logits(hidden), other, **args, **numbers)
    _check_values(values, hidden.shape[:1])
    return values, ()

  hidden = hidden.reshape(-1, hidden.shape[-1])
  tokens, shared = jax.lax.stop_gradient((tokens, shared))
  return chunks.Inputs(hidden, head, args, tokens, shared), run


def _takes_labels(loss: Callable[..., Any]) -> bool:
  """Whether the second parameter of a loss is `labels`."""
  return list(inspect.signature(loss).parameters)[1:2] == ['labels']


def _check_width(name, hidden, head):
  if hidden.shape[-1:] != head.kernel.shape[:1]:
    raise ValueError(
      f'{name}_hidden of shape {hidden.shape} does not fit {name}_head, whose '
      f'kernel is {head.kernel.shape}: they must share D, as in [..., D] and '
      '[D, V].'
    )


def _check_teacher(student, teacher):
  (hidden, head), (theirs, their_head) = student, teacher
  if their_head is None:
    raise ValueError('teacher_hidden is given, but teacher_head is None.')
  _check_width('teacher', theirs, their_head)
  if theirs.shape[:-1] != hidden.shape[:-1]:
    raise ValueError(
      'student_hidden and teacher_hidden must be of the same tokens, got '
      f'shapes {hidden.shape} and {theirs.shape}.'
    )
  sizes = head.kernel.shape[1], their_head.kernel.shape[1]
  if sizes[0] != sizes[1]:
    raise ValueError(
      f'the heads have vocabularies of {sizes[0]} and {sizes[1]}; they must '
      'share one. If one pads its table, cut both by head.first(count).'
    )


def _check_known(shape, teacher):
  found, head = teacher
  if head is not None:
    raise ValueError(
      'a TopK holds what the teacher gave: leave teacher_head out.'
    )
  if found.tail.shape != shape:
    raise ValueError(
      'student_hidden and the TopK must be of the same tokens, got shapes '
      f'{shape} and {found.tail.shape} of tokens.'
    )


def _check_values(values, shape):
  found = [jnp.shape(x) for x in jax.tree.leaves(values)]
  if set(found) != {shape}:
    raise ValueError(
      'the loss must return one value a token, or a tree of such: arrays of '
      f'shape {shape} for {shape[0]} tokens, got shapes {found}.'
    )


def _flat(name, values, shape):
  """Returns one value a token, [N, ...]."""
  values = jnp.asarray(values)
  try:
    return jnp.broadcast_to(values, shape).reshape(-1)
  except ValueError as error:
    raise ValueError(
      f'{name} of shape {values.shape} does not fit tokens of shape {shape}: '
      'give a scalar or one value a token.'
    ) from error
