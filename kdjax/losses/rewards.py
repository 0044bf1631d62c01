"""Rewards for policy gradients, one a token. `returns` adds them up.

All are float32 constants: no gradient passes through a function of this module.
A mask [B, T] is True on the tokens of a response, through the first end of
sequence. They stand together, but need not start at 0. What stands off the mask
does not matter, and gets 0.

Logits, log-probabilities, rewards and returns beyond LIMIT = 1e9 count as
LIMIT: every result is finite, but where a NaN stands on the mask.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import numbers
from kdjax.losses.sparse import check_whole

ArrayLike = jax.typing.ArrayLike

# Far beyond any logit or log-probability, and 1e6 squares of it still add up in
# float32. Logits at or below -LIMIT are the missing tokens: masks of -1e9 and
# of the lowest float32 are in use, and would wreck a mean over the vocabulary.
LIMIT = 1e9


def induced_reward(
  teacher_logits: jax.Array,
  tokens: jax.Array,
  mask: jax.Array,
  *,
  value: str = 'max',
  centered: bool = True,
) -> jax.Array:
  """The reward for which the teacher's logits are optimal action values.

  r_t = f(y_t | s_t) - V(s_{t+1}), where f are the logits, less their mean over
  the vocabulary if `centered`. V(s) = max_v f(v | s), or with
  value='expectation' sum_v softmax(f(. | s))_v f(v | s).

  V is 0 after the last token of the mask: that token ends the sequence, or is
  where it was cut, as if it ended there. (The LLMR code drops sequences that
  were cut: mask them off.)

  Centring makes the reward blind to a constant added to a step's logits, which
  the softmax doesn't see either. A logit of -inf takes no part in mean and V;
  choosing that token, or one outside [0, V), is rewarded with about -LIMIT.

  The LMReward code weighs V's expectation by the softmax of s_t instead.

  >>> import jax.numpy as jnp
  >>> logits = jnp.array([[[1.0, 3.0], [2.0, 0.0]]])
  >>> mask = jnp.array([[True, True]])
  >>> print(induced_reward(logits, jnp.array([[1, 0]]), mask))
  [[0. 1.]]

  Args:
    teacher_logits: [B, T, V].
    tokens: [B, T] integers, the response.
    mask: [B, T] bool.
    value: 'max' or 'expectation'.
    centered: whether to subtract each step's mean logit.

  Returns:
    [B, T] float32.

  Raises:
    TypeError: for a TopK in place of logits.
    ValueError: if the shapes don't match or `value` is another.

  References:
    Hao et al., 2022, https://arxiv.org/abs/2210.08708, section 3.2; Li et al.,
    2024 (LLMR), https://arxiv.org/abs/2409.12500, section 3.
  """
  check_whole('induced_reward', teacher_logits)
  tokens = jnp.asarray(tokens)
  check_shape('teacher_logits without V', teacher_logits[..., 0], tokens)
  chosen, values = action_values(
    teacher_logits, tokens, value=value, centered=centered
  )
  return bellman_reward(chosen, values, mask)


def action_values(
  teacher_logits: jax.Array,
  tokens: jax.Array,
  *,
  value: str = 'max',
  centered: bool = True,
) -> tuple[jax.Array, jax.Array]:
  """Values of actions and states, where logits are optimal action values.

  f(y_t | s_t) and V(s_t), as in `induced_reward`; each of one token's logits.

  >>> import jax.numpy as jnp
  >>> found = action_values(jnp.array([1.0, 3.0]), jnp.array(0))
  >>> print(*found)
  -1.0 1.0

  Args:
    teacher_logits: [..., V].
    tokens: [...] integers.
    value: 'max' or 'expectation'.
    centered: whether to subtract the mean logit.

  Returns:
    Two arrays [...] float32.

  Raises:
    TypeError: for a TopK in place of logits.
    ValueError: if `value` is another.
  """
  check_whole('action_values', teacher_logits)
  if value not in ('max', 'expectation'):
    raise ValueError(f"value must be 'max' or 'expectation', got {value!r}.")
  below, level = _levels(teacher_logits, centered)
  known = (tokens >= 0) & (tokens < below.shape[-1])
  index = jnp.where(known, tokens, 0)[..., None]
  chosen = jnp.take_along_axis(below, index, -1)[..., 0]
  chosen = jnp.where(known, chosen, -LIMIT)
  values = level if value == 'max' else level + _mean_below(below)
  return chosen + level, values


def bellman_reward(
  chosen: jax.Array, values: jax.Array, mask: jax.Array
) -> jax.Array:
  """The reward that makes action values optimal: r_t = f_t - V(s_{t+1}).

  >>> import jax.numpy as jnp
  >>> chosen, values = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])
  >>> print(bellman_reward(chosen, values, jnp.array([[True, True]])))
  [[-3.  2.]]

  Args:
    chosen: [B, T] f(y_t | s_t), from `action_values`.
    values: [B, T] V(s_t).
    mask: [B, T] bool; V is 0 after its last token.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match.
  """
  chosen, values = constant(chosen), constant(values)
  mask = check_mask(mask, chosen)
  following = jnp.where(_shift(mask), _shift(values), 0.0)
  return jnp.where(mask, chosen - following, 0.0)


def teacher_baseline(
  teacher_logits: jax.Array, *, centered: bool = True
) -> jax.Array:
  """What the teacher expects of a state, to subtract from returns.

  b_t = sum_v softmax(f(. | s_t))_v f(v | s_t), with f as in `induced_reward`.
  A function of the state: it leaves the expected gradient as it is.

  >>> import jax.numpy as jnp
  >>> print(teacher_baseline(jnp.log(jnp.array([1.0, 3.0]))).round(4))
  0.2747

  Args:
    teacher_logits: [..., V].
    centered: whether to subtract the mean logit.

  Returns:
    [...] float32.

  Raises:
    TypeError: for a TopK in place of logits.

  References:
    The `--baseline` of https://github.com/MANGA-UOFA/LMReward.
  """
  check_whole('teacher_baseline', teacher_logits)
  below, level = _levels(teacher_logits, centered)
  return level + _mean_below(below)


def reverse_kl_reward(
  teacher_logprobs: jax.Array,
  student_logprobs: jax.Array,
  mask: jax.Array,
  *,
  scale: ArrayLike = 1.0,
  clip: ArrayLike | None = None,
) -> jax.Array:
  """The reward whose expected sum is minus the sequences' reverse KL.

  r_t = clip((log p(y_t | s_t) - log q(y_t | s_t)) / scale, -clip, clip).

  Two gradients of KL(q || p) over sequences are exact (at scale 1, unclipped):
  by returns that hold r_t itself, or by returns from r_{t+1} on and the
  gradient of `reverse_kl` at s_t, which has less variance. MiniLLM's code takes
  both, and so counts r_t twice. Its scale is 0.5 and its clip 100.

  >>> import jax.numpy as jnp
  >>> teacher, student = jnp.log(jnp.array([[[0.5, 0.5]], [[0.25, 1.0]]]))
  >>> mask = jnp.array([[True, False]])
  >>> print(reverse_kl_reward(teacher, student, mask).round(4))
  [[0.6931 0.    ]]

  Args:
    teacher_logprobs: [B, T], of the response's tokens.
    student_logprobs: [B, T].
    mask: [B, T] bool.
    scale: positive; may be traced.
    clip: positive, or None; may be traced.

  Returns:
    [B, T] float32.

  Raises:
    ValueError: if the shapes don't match, or `scale` or `clip` is a number that
      is not positive.

  References:
    Gu et al., 2024 (MiniLLM), https://arxiv.org/abs/2306.08543, section 2.2.
  """
  check_positive('scale', scale)
  check_positive('clip', clip)
  teacher, student = constant(teacher_logprobs), constant(student_logprobs)
  check_shape('student_logprobs', student, teacher)
  mask = check_mask(mask, teacher)
  reward = constant((teacher - student) / scale)
  if clip is not None:
    reward = jax.lax.stop_gradient(jnp.clip(reward, -clip, clip))
  return jnp.where(mask, reward, 0.0)


def constant(values: ArrayLike) -> jax.Array:
  """Returns float32 values without a gradient, within LIMIT."""
  values = jax.lax.stop_gradient(jnp.asarray(values, jnp.float32))
  return jnp.clip(values, -LIMIT, LIMIT)


def check_positive(name: str, number: ArrayLike | None) -> None:
  """Raises a ValueError for a number, not a traced value, at or below 0."""
  if numbers.is_wrong(number, lambda x: x > 0):
    raise ValueError(f'{name} must be positive, got {number}.')


def _levels(logits, centered):
  """Returns logits [..., V] below each step's top, and f of that top [...]."""
  logits = constant(logits)
  top = logits.max(-1, keepdims=True)
  below = logits - top
  if not centered:
    return below, top[..., 0]
  present = ~(logits <= -LIMIT)  # NaN is present.
  count = jnp.maximum(present.sum(-1), 1)
  return below, -jnp.where(present, below, 0.0).sum(-1) / count


def _mean_below(below):
  """Returns the mean [...] of `below` [..., V] under its own softmax."""
  weights = jnp.exp(below)
  return (weights * below).sum(-1) / weights.sum(-1)


def _shift(values):
  """Returns the next token's values, 0 after the last."""
  return jnp.pad(values[:, 1:], ((0, 0), (0, 1)))


def check_mask(mask: ArrayLike, values: jax.Array) -> jax.Array:
  """Returns a mask as bool; raises a ValueError unless it is [B, T]."""
  mask = jnp.asarray(mask)
  check_shape('mask', mask, values)
  return mask.astype(bool)


def check_shape(name: str, array: jax.Array, other: jax.Array) -> None:
  """Raises a ValueError unless both are [B, T]."""
  if array.shape != other.shape or array.ndim != 2:
    raise ValueError(
      f'{name} must be [B, T] like the tokens, got shape {array.shape} beside '
      f'{other.shape}.'
    )
