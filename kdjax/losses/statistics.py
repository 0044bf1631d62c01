"""What the next-token distributions of a model come down to, token by token."""

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.losses.chunked import chunked_values
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.policy_gradient import entropy


@types.struct
class TokenStatistics:
  """Statistics of logits z [..., V], one a token.

  The softmax's mean of the logits is `log_sum_exp - entropy`.

  Attributes:
    label_logprobs: [...] log softmax(z)[label]; -inf for none of [0, V).
    log_sum_exp: [...] log sum_v exp(z_v).
    max: [...] max_v z_v.
    mean: [...] mean of z over the vocabulary, tokens of logit -inf left out.
    entropy: [...] of softmax(z), in nats.
  """

  label_logprobs: jax.Array
  log_sum_exp: jax.Array
  max: jax.Array
  mean: jax.Array
  entropy: jax.Array


def token_statistics(
  hidden: jax.Array,
  head: types.Head,
  labels: jax.Array,
  *,
  mask: jax.Array | None = None,
  chunk_size: int | None = None,
  batch_axes: tuple[str, ...] = (),
) -> TokenStatistics:
  """Statistics of a head's logits, which are never held all at once.

  Rewards and advantages are made of them. No gradient passes.

  >>> import jax.numpy as jnp
  >>> hidden, head = jnp.log(jnp.array([[1.0, 3.0]])), types.Head(jnp.eye(2))
  >>> found = token_statistics(hidden, head, jnp.array([1]))
  >>> print(found.label_logprobs.round(4), found.log_sum_exp.round(4))
  [-0.2877] [1.3863]

  Args:
    hidden: [..., D].
    head: turns them into logits [..., V].
    labels: [...] integers.
    mask: [...] bool; the statistics are 0 elsewhere. By default, all count.
    chunk_size: see `chunked`.
    batch_axes: see `chunked`.

  Returns:
    The statistics, each [...] float32.

  Raises:
    TypeError: if the labels are not integers.
    ValueError: if the shapes don't match.
  """
  if mask is None:
    mask = jnp.ones(hidden.shape[:-1], bool)
  found = chunked_values(
    _statistics,
    hidden,
    head,
    labels=labels,
    mask=mask,
    chunk_size=chunk_size,
    batch_axes=batch_axes,
  )
  return jax.lax.stop_gradient(found)


def _statistics(logits: jax.Array, labels: jax.Array) -> TokenStatistics:
  logits = logits.astype(jnp.float32)
  present = logits != -jnp.inf  # NaN is, and shows.
  count = jnp.maximum(present.sum(-1, keepdims=True), 1)
  return TokenStatistics(
    label_logprobs=-cross_entropy(logits, labels),
    log_sum_exp=jax.nn.logsumexp(logits, -1),
    max=logits.max(-1),
    # Divided before the sum, which would overflow.
    mean=(jnp.where(present, logits, 0.0) / count).sum(-1),
    entropy=entropy(logits),
  )
