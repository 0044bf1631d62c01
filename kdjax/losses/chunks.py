"""Sweeps over tokens in chunks, with gradients formed on the way.

A sweep calls a function of a chunk's hidden states and the output head, adds up
its weighted values and, where asked to, their gradients. Tokens that a mask
drops are skipped: the others are gathered first.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from kdjax import types

# What a chunk may be: bytes of one model's float32 logits, and tokens. The
# gradient of the head is added to once a chunk, most of the time where chunks
# are of few tokens; logits leave a CPU's cache where they are of many. Of 512
# tokens at V = 50,257 there, chunks of 64 took 0.70 of the time of all at once,
# 74 (no whole number of matrix tiles) 0.85, 128 took 0.65 and twice the memory.
CHUNK_BYTES = {'cpu': 16 * 2**20, 'other': 256 * 2**20}
CHUNK_TOKENS = {'cpu': 128, 'other': 4096}
_TILE = 64


@types.struct
class Inputs:
  """What a function of N tokens reads.

  Attributes:
    hidden: [N, D] the student's hidden states.
    head: the student's.
    args: [N] floating-point arguments, differentiated as well; a tree.
    tokens: [N, ...] without a gradient: labels, the teacher's hidden states.
    shared: what all tokens share, without a gradient: the teacher's head.
  """

  hidden: jax.Array
  head: types.Head
  args: Any = None
  tokens: Any = None
  shared: Any = None


# (hidden [n, D], head, args, tokens, shared) -> two trees of values [n]: those
# that are weighted and summed, and those that are only reported. They may have
# further axes where they are neither weighted nor differentiated.
Run = Callable[..., tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Plan:
  """How tokens are cut up.

  Attributes:
    size: tokens of a chunk.
    axes: mesh axes over which tokens are split. Each device goes through its
      own, and the gradients of the head are added up at the end.
  """

  size: int
  axes: tuple[str, ...] = ()


def make_plan(
  tokens: tuple[int, ...],
  vocab_size: int,
  chunk_size: int | None = None,
  batch_axes: tuple[str, ...] = (),
) -> Plan:
  """Returns how to cut up tokens of this shape.

  Args:
    tokens: [...], the shape of one value a token; the first axis may be split.
    vocab_size: V.
    chunk_size: tokens of a chunk; None for what there is room for.
    batch_axes: mesh axes that may split the first axis.

  Raises:
    ValueError: if `chunk_size` is less than 1.
  """
  if chunk_size is not None and chunk_size < 1:
    raise ValueError(f'chunk_size is {chunk_size}; it must be 1 or more.')
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(a for a in batch_axes if mesh.shape.get(a, 1) > 1)
  parts = math.prod(mesh.shape[a] for a in axes)
  if math.prod(tokens[:1]) % parts:
    axes, parts = (), 1
  most = -(-math.prod(tokens) // parts)
  if chunk_size is None:
    return Plan(max(1, min(most, _room(vocab_size))), axes)
  # Of equal size: a last chunk of few tokens would cost as much as the others.
  chunks = max(1, -(-most // chunk_size))
  return Plan(max(1, -(-most // chunks)), axes)


def _room(vocab_size: int) -> int:
  """Returns how many tokens a chunk has room for."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  # A mesh may be of devices that aren't here, to compile for them.
  platform = jax.default_backend() if device is None else device.platform
  platform = 'cpu' if platform == 'cpu' else 'other'
  tokens = CHUNK_BYTES[platform] // (4 * vocab_size)
  tokens = max(8, min(tokens, CHUNK_TOKENS[platform]))
  return tokens - tokens % _TILE if tokens > _TILE else tokens


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def weighted(
  run: Run, plan: Plan, inputs: Inputs, weights: Any, kept: jax.Array
) -> tuple[jax.Array, tuple[Any, Any]]:
  """Returns the weighted sum of a function's values, and all of its values.

  Args:
    run: of a chunk of tokens.
    plan: from `make_plan`.
    inputs: of all N tokens.
    weights: [N] float32, a tree like the first that `run` returns; constant.
    kept: [N] bool; the values of other tokens are 0, whatever stands there.
  """
  total, values, _ = _sweep(run, plan, inputs, weights, kept, False)
  return total, values


def _weighted_forward(run, plan, inputs, weights, kept):
  total, values, gradients = _sweep(run, plan, inputs, weights, kept, True)
  return (total, values), gradients


def _weighted_backward(run, plan, gradients, cotangents):
  def scale(x):
    return (cotangents[0] * x).astype(x.dtype)

  return jax.tree.map(scale, gradients), None, None


weighted.defvjp(_weighted_forward, _weighted_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def valued(run: Run, plan: Plan, inputs: Inputs, kept: jax.Array) -> Any:
  """Returns the values of a function, the first tree that `run` returns.

  Its gradient is a sweep of its own, weighted by the cotangents.
  """
  return _sweep(run, plan, inputs, None, kept, False)[1][0]


def _valued_forward(run, plan, inputs, kept):
  return valued(run, plan, inputs, kept), (inputs, kept)


def _valued_backward(run, plan, residuals, cotangents):
  inputs, kept = residuals
  return _sweep(run, plan, inputs, cotangents, kept, True)[2], None


valued.defvjp(_valued_forward, _valued_backward)


def _sweep(run, plan, inputs, weights, kept, gradients):
  """Returns the weighted sum, what `run` returns, and gradients or None."""
  # NumPy's arrays can't be indexed by a loop's counter.
  inputs = jax.tree.map(jnp.asarray, inputs)
  sweep = _sharded if plan.axes else _local
  total, values, found = sweep(run, plan, inputs, weights, kept, gradients)
  if gradients:
    head = jax.tree.map(lambda g, x: g.astype(x.dtype), found.head, inputs.head)
    found = dataclasses.replace(found, head=head)
  return total, values, found


def _local(run, plan, inputs, weights, kept, gradients):
  """`_sweep` by one device; the gradient of the head is float32."""
  size, total = plan.size, kept.shape[0]
  if not total:
    return _of_none(run, plan, inputs, weights, kept, gradients)
  order, count = jnp.argsort(~kept, stable=True), jnp.sum(kept)
  padded = jnp.pad(order, (0, -total % size))
  # The compiler gives what enters a loop its default layout, and would copy the
  # transpose of an embedding table: tied heads are turned inside the loop.
  inputs = dataclasses.replace(
    inputs, head=_turned(inputs.head), shared=_turned(inputs.shared)
  )

  def chunk(i):
    live = i * size + jnp.arange(size) < count
    rows = jax.lax.dynamic_slice_in_dim(padded, i * size, size)
    # A slot too many repeats a token, without a weight: it is as finite.
    rows = jnp.where(live, rows, order[0])
    return _chunk(run, inputs, weights, rows, live, gradients)

  def body(i, carry):
    added, listed = chunk(i)
    put = functools.partial(_put, i * size)
    return (
      jax.tree.map(lambda x, y: x + y.astype(x.dtype), carry[0], added),
      jax.tree.map(put, carry[1], listed),
    )

  def room(x):
    return jnp.zeros((padded.shape[0], *x.shape[1:]), x.dtype)

  added, listed = jax.eval_shape(chunk, 0)
  # Sums over chunks (and devices) are float32 whatever the parameters are.
  added = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), added)
  carry = added, jax.tree.map(room, listed)
  # How often at most, for who counts a program's work (`plan.counting`).
  with jax.named_scope(f'times_{padded.shape[0] // size}'):
    added, listed = jax.lax.fori_loop(0, -(-count // size), body, carry)
  slots = jnp.argsort(order)  # back from the order of the sweep
  values, by_hidden, by_args = jax.tree.map(lambda x: x[slots], listed)
  if not gradients:
    return added[0], values, None
  return added[0], values, Inputs(by_hidden, _turned(added[1]), by_args)


def _of_none(run, plan, inputs, weights, kept, gradients):
  """`_local` where there is no token: its sums are 0, what it lists empty."""

  def one(tree):  # chunks are compiled for a token, though none runs
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), tree)

  def none(tree):
    return jax.tree.map(lambda x: x[:0], tree)

  parts = {x: one(getattr(inputs, x)) for x in ('hidden', 'args', 'tokens')}
  inputs = dataclasses.replace(inputs, **parts)
  total, values, found = _local(
    run, plan, inputs, one(weights), one(kept), gradients
  )
  if gradients:
    found = Inputs(none(found.hidden), found.head, none(found.args))
  return total, none(values), found


def _chunk(run, inputs, weights, rows, live, gradients):
  """Returns what chunks add up, and what they list token by token.

  The first is the weighted sum and the gradient of the head; the second what
  `run` returns and the gradients of hidden states and arguments.
  """
  hidden, args, tokens, weights = jax.tree.map(
    lambda x: x[rows], (inputs.hidden, inputs.args, inputs.tokens, weights)
  )

  def values(hidden, head, args):
    return run(hidden, _turned(head), args, tokens, _turned(inputs.shared))

  if not gradients:
    found = values(hidden, inputs.head, args)
    by_hidden = by_head = by_args = None
  else:
    value, pull, report = jax.vjp(
      values, hidden, inputs.head, args, has_aux=True
    )
    found = value, report
    weights = jax.tree.map(lambda w: jnp.where(live, w, 0.0), weights)
    by_hidden, by_head, by_args = pull(weights)
  found = jax.tree.map(lambda x: _kept(live, x), found)
  total = jnp.float32(0)
  if weights is not None:
    total = sum(
      jax.tree.leaves(jax.tree.map(_product, found[0], weights)), total
    )
  return (total, by_head), (found, by_hidden, by_args)


def _kept(live, x):
  """Values [n, ...] of live tokens, 0 elsewhere."""
  live = live.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.where(live, x, jnp.zeros((), x.dtype))


def _turned(tree):
  """Transposes the kernels of tied heads, and so back."""

  def turn(x):
    if isinstance(x, types.Head) and x.tied:
      return dataclasses.replace(x, kernel=x.kernel.T)
    return x

  return jax.tree.map(turn, tree, is_leaf=lambda x: isinstance(x, types.Head))


def _product(value, weight):
  # An infinite value without a weight adds nothing.
  return jnp.sum(jnp.where(weight != 0, value * weight, 0.0))


def _put(start, buffer, update):
  return jax.lax.dynamic_update_slice_in_dim(buffer, update, start, 0)


def _sharded(run, plan, inputs, weights, kept, gradients):
  """`_sweep` where devices hold different tokens."""
  split, whole = PartitionSpec(plan.axes), PartitionSpec()
  found_specs = Inputs(split, whole, split) if gradients else None

  def sweep(inputs, weights, kept):
    summed, values, found = _local(run, plan, inputs, weights, kept, gradients)
    if gradients:
      head = jax.lax.psum(found.head, plan.axes)
      found = dataclasses.replace(found, head=head)
    return jax.lax.psum(summed, plan.axes), values, found

  return jax.shard_map(
    sweep,
    in_specs=(Inputs(split, whole, split, split, whole), split, split),
    out_specs=(whole, split, found_specs),
    axis_names=set(plan.axes),
    check_vma=False,
  )(inputs, weights, kept)
