"""A teacher's k likeliest tokens, kept in place of all its logits."""

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses import chunks, softmax
from kdjax.losses.sparse import log_sum_of_others


def top_k(logits: jax.Array, k: int) -> types.TopK:
  """The k likeliest tokens of logits, and the logarithm of what they leave.

  The tail is the other tokens' own log-sum-exp, not 1 less the mass of the k,
  which would have no digits left where it is small.

  >>> import jax.numpy as jnp
  >>> found = top_k(jnp.log(jnp.array([0.125, 0.625, 0.25])), 1)
  >>> print(found.ids, jnp.exp(found.logprobs), jnp.exp(found.tail))
  [1] [0.625] 0.375

  Args:
    logits: [..., V].
    k: tokens to keep, 1 to V; of those that tie, the lowest ids.

  Returns:
    ids and logprobs [..., k], the likeliest first, and tail [...], -inf at
    k = V. NaN in the last two where a logit is. No gradient.

  Raises:
    ValueError: if k isn't in 1 to V.
  """
  size = logits.shape[-1]
  if not 1 <= k <= size:
    raise ValueError(f'k={k}: expected 1 to the vocabulary, {size}.')
  logits = jax.lax.stop_gradient(logits)
  log_p, (top, log_total), invalid = softmax.log_softmax(logits)
  logprobs, ids = jax.lax.top_k(log_p, k)
  tail = log_sum_of_others(logits, ids) - (top + log_total)[..., 0]
  return types.TopK(
    ids.astype(jnp.int32),
    jnp.where(invalid[..., None], jnp.nan, logprobs),
    jnp.where(invalid, jnp.nan, tail),
  )


def chunked_top_k(
  hidden: jax.Array,
  head: types.Head,
  k: int,
  *,
  mask: jax.Array | None = None,
  chunk_size: int | None = None,
  batch_axes: tuple[str, ...] = (),
) -> types.TopK:
  """`top_k` of a head's logits, which are never held all at once.

  >>> import jax.numpy as jnp
  >>> hidden = jnp.log(jnp.array([[0.125, 0.625, 0.25]]))
  >>> print(chunked_top_k(hidden, types.Head(jnp.eye(3)), 2).ids)
  [[1 2]]

  Args:
    hidden: [..., D].
    head: turns them into logits [..., V].
    k: tokens to keep, 1 to V.
    mask: [...] bool; all is 0 elsewhere. By default, all count.
    chunk_size: see `chunked`.
    batch_axes: see `chunked`.

  Returns:
    As `top_k`.

  Raises:
    ValueError: if k isn't in 1 to V, or the shapes don't match.
  """
  shape = hidden.shape[:-1]
  mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
  kept = jnp.broadcast_to(mask, shape).reshape(-1)

  def run(hidden, head, *unused):
    return top_k(head.logits(hidden), k), ()

  inputs = chunks.Inputs(hidden.reshape(-1, hidden.shape[-1]), head)
  inputs = jax.lax.stop_gradient(inputs)
  size = head.kernel.shape[1]
  plan = chunks.make_plan(shape, size, chunk_size, batch_axes)
  found = chunks.valued(run, plan, inputs, kept)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
