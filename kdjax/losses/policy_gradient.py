"""Policy gradients: surrogate losses of what the student sampled.

Each takes what belongs to the sampled tokens, not logits (except for the two
entropies), and returns one float32 value a token, to be reduced under the
response's mask. The sample itself is a constant: its part of the gradient is
that of its log-probabilities.

Log-probabilities and advantages beyond 1e9 count as 1e9, and log-ratios of two
policies beyond 20 as 20, without gradient: nothing overflows. A token with a
NaN anywhere has the value NaN and the gradient 0, so that a mask over values is
enough.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import distributions
from kdjax.losses.rewards import LIMIT, check_positive, constant

ArrayLike = jax.typing.ArrayLike

# Of log(q / b): e^20 is 4.9e8. A token this unlikely is not met in a lifetime
# of sampling from b.
MAX_LOG_RATIO = 20.0


def policy_gradient(
  logprobs: jax.Array,
  advantages: ArrayLike,
  *,
  behaviour_logprobs: jax.Array | None = None,
  clip: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
) -> jax.Array:
  """REINFORCE, its importance-weighted form, or PPO's clipped one.

  -A log q without `behaviour_logprobs`; with them, and rho = q / b, -rho A, or
  -min(rho A, clip(rho, 1 - clip, 1 + clip) A). A and b are constants.

  -rho A weighs each token by its own ratio. That is exact where a response is
  one token, or one number stands for all of it: summed log-probabilities [B, 1]
  and the response's return. Over several tokens, it is the gradient at states
  and with returns of b's: near b, that of q.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.5, 0.25]))
  >>> print(policy_gradient(logprobs, jnp.array([2.0, -1.0])).round(4))
  [ 1.3863 -1.3863]
  >>> behaviour = jnp.log(jnp.array([0.25, 0.25]))
  >>> print(
  ...   policy_gradient(
  ...     logprobs, 1.0, behaviour_logprobs=behaviour, clip=0.2
  ...   )
  ... )
  [-1.2 -1. ]

  Args:
    logprobs: [B, T] log q of the sampled tokens, differentiated.
    advantages: A, a scalar, [B, 1] or [B, T].
    behaviour_logprobs: [B, T] log b, under the distribution really sampled
      from, or None.
    clip: positive; or (low, high) for 1 - low and 1 + high, as in DAPO.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match, `clip` is not positive, or there is a
      `clip` without `behaviour_logprobs`.

  References:
    Williams, 1992, https://doi.org/10.1007/BF00992696; Schulman et al., 2017
    (PPO), https://arxiv.org/abs/1707.06347, equation 7; Shao et al., 2024
    (GRPO), https://arxiv.org/abs/2402.03300, equation 3; Yu et al., 2025
    (DAPO), https://arxiv.org/abs/2503.14476, section 3.1.
  """
  if behaviour_logprobs is None:
    if clip is not None:
      raise ValueError(
        f'clip={clip} bounds the ratio to the behaviour policy, but '
        'behaviour_logprobs is None: give them, or no clip.'
      )
    invalid, (logprobs, advantages) = _tokens(logprobs, advantages=advantages)
    return _mark(invalid, -advantages * logprobs)
  invalid, (logprobs, advantages, behaviour) = _tokens(
    logprobs, advantages=advantages, behaviour_logprobs=behaviour_logprobs
  )
  ratio = _exp(logprobs - behaviour)
  gain = ratio * advantages
  if clip is not None:
    low, high = clip if isinstance(clip, tuple | list) else (clip, clip)
    check_positive('clip', low)
    check_positive('clip', high)
    clipped = jnp.clip(ratio, 1 - low, 1 + high)
    gain = jnp.minimum(gain, clipped * advantages)
  return _mark(invalid, -gain)


def weighted_reinforce(
  logprobs: jax.Array,
  returns: ArrayLike,
  *,
  behaviour_logprobs: jax.Array,
  return_clip: ArrayLike | None = None,
) -> jax.Array:
  """REINFORCE with importance-weighted, clipped returns: LLMR's loss.

  -A log q, with A = clip(G q / b, -return_clip, return_clip) a constant.

  The gradient is -A grad log q. Without `return_clip`, that is the gradient of
  `policy_gradient` with the same `behaviour_logprobs`, though not its value.
  Unlike PPO's, this clip shortens the gradient and never removes it.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.5]))
  >>> behaviour = jnp.log(jnp.array([0.25]))
  >>> loss = weighted_reinforce(
  ...   logprobs, 3.0, behaviour_logprobs=behaviour, return_clip=2.0
  ... )
  >>> print(loss.round(4))
  [1.3863]

  Args:
    logprobs: [B, T] log q of the sampled tokens, differentiated.
    returns: G, a scalar, [B, 1] or [B, T].
    behaviour_logprobs: [B, T] log b, under the distribution really sampled
      from.
    return_clip: positive, or None; may be traced. LLMR's `reward_clip`.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match or `return_clip` is not positive.

  References:
    Li et al., 2024 (LLMR), https://arxiv.org/abs/2409.12500, and its code,
    https://github.com/MANGA-UOFA/Prompt-LLMR.
  """
  check_positive('return_clip', return_clip)
  invalid, (logprobs, returns, behaviour) = _tokens(
    logprobs, returns=returns, behaviour_logprobs=behaviour_logprobs
  )
  advantages = returns * _exp(logprobs - behaviour)
  if return_clip is not None:
    advantages = jnp.clip(advantages, -return_clip, return_clip)
  return _mark(invalid, -jax.lax.stop_gradient(advantages) * logprobs)


def kl_estimate(
  logprobs: jax.Array, reference_logprobs: jax.Array
) -> jax.Array:
  """Unbiased estimate of KL(q || reference) from a token sampled from q.

  exp(d) - d - 1 with d = log p_ref - log q, never negative: "k3", GRPO's
  penalty.

  Only the value is unbiased. The expected gradient of this at fixed samples is
  that of KL(reference || q), the forward one.

  >>> import jax.numpy as jnp
  >>> logprobs, reference = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
  >>> print(kl_estimate(logprobs, reference).round(2))
  [0.19 0.09]

  Args:
    logprobs: [B, T] log q of the sampled tokens, differentiated.
    reference_logprobs: [B, T], a constant.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match.

  References:
    Schulman, 2020, http://joschu.net/blog/kl-approx.html; Shao et al., 2024
    (GRPO), https://arxiv.org/abs/2402.03300, equation 4.
  """
  invalid, (logprobs, reference) = _tokens(
    logprobs, reference_logprobs=reference_logprobs
  )
  d = jnp.minimum(reference - logprobs, MAX_LOG_RATIO)
  # d^2 / 2 is what cancels last: at d = 1e-4, expm1(d) - d has 3 digits left.
  small = jnp.abs(d) < distributions.SMALL
  x = jnp.where(small, d, 0.0)
  series = 0.0
  for factorial in (5040, 720, 120, 24, 6, 2):  # The next adds 4e-8 at SMALL.
    series = series * x + 1 / factorial
  series *= x * x
  return _mark(invalid, jnp.where(small, series, jnp.expm1(d) - d))


def entropy(logits: jax.Array) -> jax.Array:
  """Entropy of softmax(logits).

  -sum_v q log q, where 0 log 0 is 0.

  >>> import jax.numpy as jnp
  >>> print(entropy(jnp.array([0.0, 0.0, -jnp.inf])).round(4))
  0.6931

  Args:
    logits: [..., V].

  Returns:
    [...] float32.
  """
  log_q, _, invalid = distributions.log_softmax(logits)
  terms = jnp.exp(log_q) * jnp.maximum(log_q, distributions.LOWEST)
  return _mark(invalid, -terms.sum(-1))


def uniform_cross_entropy(logits: jax.Array) -> jax.Array:
  """Cross-entropy of softmax(logits) under the uniform distribution.

  mean_v(-log q), over the tokens whose logit is not -inf. LLMR's code adds this
  to its loss and calls it entropy; unlike entropy, it has no upper bound.

  >>> import jax.numpy as jnp
  >>> print(uniform_cross_entropy(jnp.array([0.0, 0.0, -jnp.inf])).round(4))
  0.6931

  Args:
    logits: [..., V].

  Returns:
    [...] float32.

  References:
    Li et al., 2024 (LLMR), https://arxiv.org/abs/2409.12500, its code.
  """
  log_q, _, invalid = distributions.log_softmax(logits)
  present = log_q > -jnp.inf
  count = jnp.maximum(present.sum(-1, keepdims=True), 1)
  # Divided before the sum, which would overflow.
  terms = jnp.where(present, log_q, 0.0) / count
  return _mark(invalid, -terms.sum(-1))


def _tokens(logprobs, **constants):
  """Returns where the arguments hold a NaN, and the arguments, 0 there."""
  logprobs = jnp.clip(jnp.asarray(logprobs, jnp.float32), -LIMIT, LIMIT)
  arrays = [logprobs]
  for name, array in constants.items():
    array = constant(array)
    _check_shape(name, array, logprobs)
    arrays.append(jnp.broadcast_to(array, logprobs.shape))
  invalid = sum(map(jnp.isnan, arrays)) > 0
  return invalid, [jnp.where(invalid, 0.0, array) for array in arrays]


def _mark(invalid, values):
  return jnp.where(invalid, jnp.nan, values)


def _exp(log_ratio):
  return jnp.exp(jnp.minimum(log_ratio, MAX_LOG_RATIO))


def _check_shape(name, array, logprobs):
  """Raises unless one a token, or (except for log-probabilities) fewer."""
  fits = array.shape == logprobs.shape
  if not name.endswith('logprobs') and not fits:
    # [B] beside [B, T] would be read along T where B = T.
    pairs = zip(array.shape, logprobs.shape)
    same_rank = array.ndim == logprobs.ndim
    fits = not array.ndim or (same_rank and all(a in (1, b) for a, b in pairs))
  if not fits:
    raise ValueError(
      f'{name} of shape {array.shape} does not fit logprobs of shape '
      f'{logprobs.shape}: give one per token, or [:, None] for one per '
      'response.'
    )
