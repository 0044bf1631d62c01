"""Preference losses: the chosen response of a pair against the rejected one.

Each takes log-probabilities of whole responses, summed over their tokens, and
returns one float32 value a pair [B]. `chosen` and `rejected` are the student's,
log q(y); the reference's, log p(y), get no gradient. Lengths count a response's
tokens; an empty response counts as one.

At the edges: a log-probability of -inf gives the limit of the value, log 0 less
log 0 is 0, and a pair that holds a NaN has the value NaN and the gradient 0.
"""

import jax
import jax.numpy as jnp

from kdjax.losses import numbers

ArrayLike = jax.typing.ArrayLike


def dpo(
  chosen: jax.Array,
  rejected: jax.Array,
  reference_chosen: jax.Array,
  reference_rejected: jax.Array,
  *,
  beta: ArrayLike = 0.1,
  label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
  """Direct preference optimization.

  -(1 - e) log sigmoid(h) - e log sigmoid(-h), where h = beta log q(y_c)/p(y_c)
  - beta log q(y_r)/p(y_r) and e is the label smoothing.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.1, 0.2, 0.2]))
  >>> print(round(float(dpo(*logprobs, beta=1.0)), 4))
  0.2231

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    reference_chosen: [B] log p(y_c).
    reference_rejected: [B] log p(y_r).
    beta: positive.
    label_smoothing: e, the share of pairs taken to be the wrong way round, in
      [0, 0.5).

  Returns:
    [B] float32; log 2 where q = p.

  Raises:
    ValueError: if shapes differ, or beta or label_smoothing is out of range.

  References:
    Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, equation 7.
  """
  _check(beta=beta)
  if numbers.is_wrong(label_smoothing, lambda x: 0 <= x < 0.5):
    raise ValueError(
      f'label_smoothing must be in [0, 0.5), got {label_smoothing}.'
    )
  h = beta * _margin(chosen, rejected, reference_chosen, reference_rejected)
  wrong = jnp.where(label_smoothing > 0, label_smoothing * _preferred(-h), 0.0)
  return (1 - label_smoothing) * _preferred(h) + wrong


def ipo(
  chosen: jax.Array,
  rejected: jax.Array,
  reference_chosen: jax.Array,
  reference_rejected: jax.Array,
  *,
  tau: ArrayLike = 0.1,
  chosen_lengths: jax.Array | None = None,
  rejected_lengths: jax.Array | None = None,
) -> jax.Array:
  """Identity preference optimization.

  (h - 1 / (2 tau))^2, where h = log q(y_c)/p(y_c) - log q(y_r)/p(y_r): the
  student's margin is pulled to a finite target, not to infinity.

  The paper's log-probabilities are sums. With lengths they are means over
  tokens, as in TRL: another target, 1 / (2 tau) a token.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.1, 0.2, 0.2]))
  >>> print(round(float(ipo(*logprobs, tau=0.5)), 4))
  0.1492

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    reference_chosen: [B] log p(y_c).
    reference_rejected: [B] log p(y_r).
    tau: positive.
    chosen_lengths: [B] |y_c|, or None for sums.
    rejected_lengths: [B] |y_r|, or None for sums.

  Returns:
    [B] float32; +inf, without gradient, where h is infinite.

  Raises:
    ValueError: if shapes differ, one length is missing, or tau is not positive.

  References:
    Azar et al., 2023, https://arxiv.org/abs/2310.12036, equation 17.
  """
  _check(tau=tau)
  lengths = chosen_lengths, rejected_lengths
  h = _margin(chosen, rejected, reference_chosen, reference_rejected, lengths)
  finite = jnp.isfinite(h)
  error = jnp.where(finite, h, 0.0) - 1 / (2 * tau)
  return jnp.where(finite, error**2, jax.lax.stop_gradient(jnp.abs(h)))


def cpo(
  chosen: jax.Array, rejected: jax.Array, *, beta: ArrayLike = 0.1
) -> jax.Array:
  """Contrastive preference optimization, its preference part.

  -log sigmoid(beta log q(y_c) - beta log q(y_r)): DPO with a uniform reference.

  The paper adds -log q(y_c); have it by a cross-entropy term beside this one,
  without which nothing keeps log q(y_c) from falling.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.1]))
  >>> print(round(float(cpo(*logprobs, beta=1.0)), 4))
  0.2231

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    beta: positive.

  Returns:
    [B] float32.

  Raises:
    ValueError: if shapes differ or beta is not positive.

  References:
    Xu et al., 2024, https://arxiv.org/abs/2401.08417, section 3.
  """
  _check(beta=beta)
  return _preferred(beta * _margin(chosen, rejected))


def simpo(
  chosen: jax.Array,
  rejected: jax.Array,
  chosen_lengths: jax.Array,
  rejected_lengths: jax.Array,
  *,
  beta: ArrayLike = 2.0,
  gamma: ArrayLike = 1.0,
) -> jax.Array:
  """Simple preference optimization, of mean log-probabilities.

  -log sigmoid(beta/|y_c| log q(y_c) - beta/|y_r| log q(y_r) - gamma).

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.16, 0.1]))
  >>> lengths = jnp.array([2, 1])
  >>> print(round(float(simpo(*logprobs, *lengths, beta=1.0, gamma=0.0)), 4))
  0.2231

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    chosen_lengths: [B] |y_c|.
    rejected_lengths: [B] |y_r|.
    beta: positive.
    gamma: the margin by which the chosen should win.

  Returns:
    [B] float32.

  Raises:
    ValueError: if shapes differ or beta is not positive.

  References:
    Meng et al., 2024, https://arxiv.org/abs/2405.14734, equation 6.
  """
  _check(beta=beta)
  lengths = chosen_lengths, rejected_lengths
  return _preferred(beta * _margin(chosen, rejected, lengths=lengths) - gamma)


def dpkd(
  chosen: jax.Array,
  rejected: jax.Array,
  reference_chosen: jax.Array,
  reference_rejected: jax.Array,
  *,
  beta: ArrayLike = 0.1,
  chosen_lengths: jax.Array | None = None,
  rejected_lengths: jax.Array | None = None,
) -> jax.Array:
  """Direct preference knowledge distillation, of whole responses.

  -log sigmoid(beta/|y_c| log q(y_c)/p(y_c) - beta/|y_r| log q(y_r)/p(y_r)),
  where y_c is the teacher's response, y_r the student's, and the reference p is
  the teacher itself. Without lengths, both |y| are 1: DPO.

  Its derivative by log q(y_c) is -beta/|y_c| sigmoid(-h), h as above; the
  paper's equation 11 prints the opposite sign in the sigmoid. Sample y_r anew
  as the student moves: a short one dominates the normalised h. The loss can
  lower log q(y_c), so the paper adds a language-modelling term.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.1, 0.2, 0.2]))
  >>> print(round(float(dpkd(*logprobs, beta=1.0)), 4))
  0.2231

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    reference_chosen: [B] log p(y_c), the teacher's.
    reference_rejected: [B] log p(y_r).
    beta: positive.
    chosen_lengths: [B] |y_c|, or None for equation 8.
    rejected_lengths: [B] |y_r|, or None for equation 8.

  Returns:
    [B] float32; log 2 where q = p.

  Raises:
    ValueError: if shapes differ, one length is missing, or beta is not
      positive.

  References:
    Li et al., 2024, https://arxiv.org/abs/2406.19774, equations 8 and 9.
  """
  _check(beta=beta)
  lengths = chosen_lengths, rejected_lengths
  h = _margin(chosen, rejected, reference_chosen, reference_rejected, lengths)
  return _preferred(beta * h)


def ranking(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  form: str = 'logistic',
  margin: ArrayLike = 1.0,
  chosen_lengths: jax.Array | None = None,
  rejected_lengths: jax.Array | None = None,
) -> jax.Array:
  """Ranking loss, where the teacher ranks the chosen above the rejected.

  With h = log q(y_c) - log q(y_r), of means over tokens if lengths are given:
  'logistic' is -log sigmoid(h), 'hinge' max(0, margin - h), 'linear' -h.

  'linear' is the objective as surveys write it, and unbounded below: the
  student can lower q(y_r) for ever. It is there to compare with.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.1]))
  >>> print(round(float(ranking(*logprobs)), 4))
  0.2231
  >>> print(ranking(*logprobs, form='hinge'))
  0.0

  Args:
    chosen: [B] log q(y_c), summed over tokens.
    rejected: [B] log q(y_r).
    form: 'logistic', 'hinge' or 'linear'.
    margin: of the hinge; the others ignore it.
    chosen_lengths: [B] |y_c|, or None for sums.
    rejected_lengths: [B] |y_r|, or None for sums.

  Returns:
    [B] float32.

  Raises:
    ValueError: if shapes differ, one length is missing, or the form is unknown.

  References:
    Tang & Wang, 2018, https://arxiv.org/abs/1809.07428 (ranking distillation);
    Zhao et al., 2023 (SLiC), https://arxiv.org/abs/2305.10425 (the hinge).
  """
  if form not in ('logistic', 'hinge', 'linear'):
    raise ValueError(
      f"form must be 'logistic', 'hinge' or 'linear', got {form!r}."
    )
  lengths = chosen_lengths, rejected_lengths
  h = _margin(chosen, rejected, lengths=lengths)
  if form == 'logistic':
    return _preferred(h)
  if form == 'hinge':
    return jnp.maximum(margin - h, 0.0)
  return jnp.where(jnp.isnan(h), jnp.nan, -h)


def implicit_reward(
  logprobs: jax.Array,
  reference_logprobs: jax.Array,
  *,
  beta: ArrayLike = 0.1,
  lengths: jax.Array | None = None,
) -> jax.Array:
  """Reward that the student has learned, up to a constant of the prompt.

  beta log q(y)/p(y), over |y| if lengths are given.

  >>> import jax.numpy as jnp
  >>> logprobs = jnp.log(jnp.array([0.4, 0.2]))
  >>> print(round(float(implicit_reward(*logprobs, beta=1.0)), 4))
  0.6931

  Args:
    logprobs: [B] log q(y), summed over tokens.
    reference_logprobs: [B] log p(y).
    beta: positive.
    lengths: [B] |y|, or None for sums.

  Returns:
    [B] float32.

  Raises:
    ValueError: if shapes differ or beta is not positive.

  References:
    Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, equation 5.
  """
  _check(beta=beta)
  return beta * _score(logprobs, reference_logprobs, lengths)


def _margin(
  chosen,
  rejected,
  reference_chosen=None,
  reference_rejected=None,
  lengths=(None, None),
):
  """By how much the chosen response's score exceeds the rejected one's."""
  if jnp.shape(chosen) != jnp.shape(rejected):
    raise ValueError(
      'chosen and rejected must have one shape, got '
      f'{jnp.shape(chosen)} and {jnp.shape(rejected)}.'
    )
  if (lengths[0] is None) != (lengths[1] is None):
    raise ValueError(
      'give both chosen_lengths and rejected_lengths, or neither.'
    )
  return _less(
    _score(chosen, reference_chosen, lengths[0]),
    _score(rejected, reference_rejected, lengths[1]),
  )


def _score(logprobs, reference, length):
  """log q(y), less log p(y) of a reference, a token of a length."""
  for name, other in (('reference', reference), ('length', length)):
    if other is not None and jnp.shape(other) != jnp.shape(logprobs):
      raise ValueError(
        f'{name} must have the shape {jnp.shape(logprobs)} of the '
        f"student's log-probabilities, got {jnp.shape(other)}."
      )
  score = jnp.asarray(logprobs, jnp.float32)
  if reference is not None:
    reference = jax.lax.stop_gradient(jnp.asarray(reference, jnp.float32))
    score = _less(score, reference)
  return score if length is None else score / jnp.maximum(length, 1)


def _less(a, b):
  """a - b, where equal infinities leave 0."""
  return jnp.where(jnp.isinf(a) & (a == b), 0.0, a - b)


def _preferred(h):
  """-log sigmoid(h); NaN has no gradient."""
  known = ~jnp.isnan(h)
  return jnp.where(known, jax.nn.softplus(-jnp.where(known, h, 0.0)), jnp.nan)


def _check(**positive):
  for name, value in positive.items():
    if numbers.is_wrong(value, lambda x: x > 0):
      raise ValueError(f'{name} must be positive, got {value}.')
