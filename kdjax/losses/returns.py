"""Rewards to returns, and returns to advantages.

As in `rewards`: float32 constants to the gradient, 0 off the mask, and numbers
beyond LIMIT count as LIMIT.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import numbers
from kdjax.losses.masked import masked_mean
from kdjax.losses.rewards import LIMIT, check_mask, constant

ArrayLike = jax.typing.ArrayLike


def sparse_reward(rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """Defers all of a sequence's rewards to its last token.

  r'_t = sum_t' r_t' at the last token of the mask, else 0: with a discount of
  1, every token's return is then that of the whole sequence.

  >>> import jax.numpy as jnp
  >>> mask = jnp.array([[True, True, False]])
  >>> print(sparse_reward(jnp.array([[1.0, 2.0, 4.0]]), mask))
  [[0. 3. 0.]]

  Args:
    rewards: [B, T].
    mask: [B, T] bool.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match.

  References:
    Hao et al., 2022, https://arxiv.org/abs/2210.08708, section 4.
  """
  rewards = constant(rewards)
  mask = check_mask(mask, rewards)
  total = jnp.where(mask, rewards, 0.0).sum(-1, keepdims=True)
  return jnp.where(mask & (_remaining(mask) == 1), total, 0.0)


def reward_to_go(
  rewards: jax.Array,
  mask: jax.Array,
  discount: ArrayLike = 1.0,
  *,
  length_normalized: bool = False,
) -> jax.Array:
  """Return from each token on.

  G_t = sum_{t' >= t} discount^(t' - t) r_t', divided by the number of tokens
  from t on if `length_normalized`, as in MiniLLM.

  The exponent is relative: discount^t' would shrink all returns of late tokens.

  >>> import jax.numpy as jnp
  >>> rewards, mask = jnp.array([[1.0, 2.0, 4.0]]), jnp.ones((1, 3), bool)
  >>> print(reward_to_go(rewards, mask, 0.5))
  [[3. 4. 4.]]

  Args:
    rewards: [B, T].
    mask: [B, T] bool.
    discount: a scalar in [0, 1]; may be traced.
    length_normalized: whether to divide by the remaining length.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match or the discount is a number outside
      [0, 1].

  References:
    Gu et al., 2024 (MiniLLM), https://arxiv.org/abs/2306.08543, section 2.2.
  """
  if numbers.is_wrong(discount, lambda x: 0 <= x <= 1):
    raise ValueError(f'discount must be in [0, 1], got {discount}.')
  rewards = constant(rewards)
  mask = check_mask(mask, rewards)
  discounts = jnp.broadcast_to(constant(discount), rewards.shape)

  def join(later, earlier):
    discount, total = earlier
    return discount * later[0], total + discount * later[1]

  parts = discounts, jnp.where(mask, rewards, 0.0)
  _, returns = jax.lax.associative_scan(join, parts, reverse=True, axis=1)
  if length_normalized:
    returns /= jnp.maximum(_remaining(mask), 1)
  return jnp.where(mask, returns, 0.0)


def whiten(
  values: jax.Array,
  mask: jax.Array,
  *,
  shift_mean: bool = True,
  epsilon: float = 1e-8,
) -> jax.Array:
  """Scales values to unit variance over the whole batch.

  (x - mean) / sqrt(variance + epsilon), plus the mean unless `shift_mean`; both
  are those of the tokens on the mask (the variance divides by their number).
  Equal values give exactly 0.

  >>> import jax.numpy as jnp
  >>> values, mask = jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[1, 1, 0]])
  >>> print(whiten(values, mask))
  [[-1.  1.  0.]]

  Args:
    values: [B, T].
    mask: [B, T] bool.
    shift_mean: whether the result has a mean of 0.
    epsilon: added to the variance.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match.
  """
  values = constant(values)
  mask = check_mask(mask, values)
  # Differences to one of the values are exactly 0 where all are equal; those to
  # a rounded mean are not, and 1e-8 would make 1e4 times as much of them.
  origin = jnp.where(mask, values, -LIMIT).max()
  mean = masked_mean(values - origin, mask)
  deviations = values - origin - mean
  variance = masked_mean(deviations**2, mask)
  whitened = deviations * jax.lax.rsqrt(variance + epsilon)
  whitened = whitened if shift_mean else whitened + mean + origin
  return jnp.where(mask, whitened, 0.0)


def group_advantages(
  rewards: jax.Array,
  group_size: int,
  *,
  scale: bool = True,
  epsilon: float = 1e-4,
) -> jax.Array:
  """Compares the responses to one prompt with each other.

  A_i = (r_i - mean) / (std + epsilon) over the G adjacent rows of a prompt;
  without the division if not `scale` (Dr. GRPO: the division favours prompts
  that are nearly always or nearly never solved). The standard deviation is the
  sample's, which divides by G - 1, as torch.std and so TRL. A group of equal
  rewards gives exactly 0.

  The mean holds r_i itself: without the division, the expected gradient is
  1 - 1/G times that of the mean reward.

  >>> import jax.numpy as jnp
  >>> rewards = jnp.array([0.0, 1.0, 5.0, 5.0])
  >>> print(group_advantages(rewards, 2, scale=False))
  [-0.5  0.5  0.   0. ]

  Args:
    rewards: [B], one a response, rows of one prompt next to each other.
    group_size: G, at least 2; divides B.
    scale: whether to divide by the standard deviation.
    epsilon: added to it.

  Returns:
    [B] float32; as [:, None], the advantage of all the tokens of a response.

  Raises:
    ValueError: if `rewards` has another rank, or `group_size` is less than 2 or
      doesn't divide B.

  References:
    Shao et al., 2024 (DeepSeekMath), https://arxiv.org/abs/2402.03300, section
    4.1; Liu et al., 2025 (Dr. GRPO), https://arxiv.org/abs/2503.20783.
  """
  rewards = constant(rewards)
  if rewards.ndim != 1:
    raise ValueError(
      f'rewards must be one a response [B], got shape {rewards.shape}: sum '
      "those of a response's tokens."
    )
  if group_size < 2 or rewards.size % group_size:
    raise ValueError(
      'group_size must be at least 2 and divide the number of rewards, got '
      f'{group_size} for {rewards.size}.'
    )
  groups = rewards.reshape(-1, group_size)
  groups = groups - groups[:, :1]  # Equal rewards are exactly 0 from here on.
  advantages = groups - groups.mean(-1, keepdims=True)
  if scale:
    advantages /= groups.std(-1, ddof=1, keepdims=True) + epsilon
  return advantages.reshape(-1)


def _remaining(mask):
  """Returns how many tokens stand on the mask from each on, [B, T]."""
  return jnp.flip(jnp.cumsum(jnp.flip(mask, 1), 1), 1)
