"""The dense twin of chunked losses: the loss on all logits, and autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses, types

# 21 tokens, in chunks of 4: the last holds 1, or 3 of those that a mask keeps.
# The teacher is of another width.
B, T, D, E, V = 3, 7, 6, 5, 11
CHUNK = 4

STUDENT = ('student_hidden', 'student_head', 'args')
TEACHER = ('teacher_hidden', 'teacher_head')


def problem(seed=0, shape=(B, T), teacher=True, **head):
  """Returns what `chunked` reads; `head` are fields of the student's."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  found = {
    'student_hidden': normal(*shape, D),
    'student_head': types.Head(normal(D, V), **head),
    'teacher_hidden': normal(*shape, E),
    'teacher_head': types.Head(normal(E, V), normal(V), softcap=5.0),
    'labels': jnp.asarray(rng.integers(0, V, shape)),
    'mask': jnp.asarray(rng.random(shape) < 0.6),
    'weights': normal(*shape),
    'args': {},
  }
  if not teacher:
    found = {name: x for name, x in found.items() if name not in TEACHER}
  return found


def known_problem(k):
  """Returns a problem whose teacher is a TopK, and its hidden states, head."""
  found = problem()
  teacher = [found.pop(name) for name in TEACHER]
  top = losses.top_k(teacher[1].logits(teacher[0]), k)
  return {**found, 'teacher_hidden': top}, teacher


def distance(student, teacher):
  """A loss that compiles fast."""
  return ((student - teacher) ** 2).sum(-1)


def dense_values(
  loss,
  student_hidden,
  student_head,
  teacher_hidden=None,
  teacher_head=None,
  *,
  labels=None,
  args=None,
):
  """Values [...] of a loss on all logits."""
  logits, other = student_head.logits(student_hidden), labels
  if teacher_hidden is not None:
    other = jax.lax.stop_gradient(teacher_head.logits(teacher_hidden))
  return loss(logits, other, **(args or {}))


def dense(loss, *models, weights, mask=True, **inputs):
  """What `losses.chunked` returns, by `masked_sum` of all values."""
  values = dense_values(loss, *models, **inputs)
  weights = jax.tree.map(lambda w: jnp.where(mask, w, 0.0), weights)
  total = jax.tree.map(losses.masked_sum, values, weights)
  kept = jax.tree.map(lambda value: jnp.where(mask, value, 0.0), values)
  return sum(jax.tree.leaves(total)), kept


@functools.cache
def _compiled(function):
  @functools.partial(jax.jit, static_argnames='numbers')
  @functools.partial(jax.value_and_grad, has_aux=True)
  def both(floats, rest, numbers):
    args = {**floats['args'], **dict(numbers)}
    found = function(**{**floats, **rest, 'args': args})
    # Of a multiple: gradients must heed their cotangents.
    return -3 * found[0], found

  return both


def gradients(function, inputs):
  """Returns what a function does, and gradients of -3 times its total.

  Compiled once a function, and shapes.
  """
  names = [name for name in (*STUDENT, *TEACHER) if name in inputs]
  floats = {name: inputs[name] for name in names}
  rest = {name: x for name, x in inputs.items() if name not in names}
  numbers, arrays = [], {}
  for key, x in inputs['args'].items():
    if isinstance(x, int | float):
      numbers.append((key, x))
    else:
      arrays[key] = x
  floats['args'] = arrays
  (_, found), grads = _compiled(function)(floats, rest, tuple(numbers))
  return found, grads


@functools.cache
def chunked(loss, chunk_size=CHUNK):
  """Returns `losses.chunked` of a loss, the same function each time."""
  return functools.partial(losses.chunked, loss, chunk_size=chunk_size)


@functools.cache
def twin(loss):
  """Returns its slow twin."""
  return functools.partial(dense, loss)


def assert_close(actual, expected, rtol=1e-5):
  """Compares trees; `rtol` is of the largest element of each array, too.

  1e-5 is some 100 roundings of float32: sums of 6 to 21 terms are taken in
  another order.
  """

  def compare(path, a, b):
    name = jax.tree_util.keystr(path)
    assert a.dtype == b.dtype and a.shape == b.shape, name
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    largest = np.max(np.abs(b), initial=0, where=np.isfinite(b))
    np.testing.assert_allclose(
      a, b, rtol=rtol, atol=rtol * largest, err_msg=name
    )

  jax.tree_util.tree_map_with_path(compare, actual, expected)


def assert_twins(loss, inputs, *, chunk_size=CHUNK, rtol=1e-5):
  """Asserts values and gradients of the dense twin, none to the teacher.

  Args:
    loss: of logits.
    inputs: from `problem`.
    chunk_size: of the chunked one.
    rtol: see `assert_close`; of the gradients.

  Returns:
    What `gradients` does.
  """
  found, grads = gradients(chunked(loss, chunk_size), inputs)
  expected, by_autodiff = gradients(twin(loss), inputs)
  for name in TEACHER:
    for leaf in jax.tree.leaves(grads.get(name, ())):
      np.testing.assert_array_equal(leaf, 0, 'a gradient to the teacher')
  assert_close(found, expected)
  assert_close(grads, by_autodiff, rtol)
  return found, grads
