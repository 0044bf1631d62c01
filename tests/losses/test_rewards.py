"""Rewards and returns against the optimal control they stand for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing
from kdjax.losses import divergences

INF = np.inf
V, T, EOS = 3, 3, 1
# Through the first end of sequence: it ends at once, later or not at all.
TOKENS = testing.responses(V, T)
MASK = jnp.cumsum(jnp.cumsum(TOKENS == EOS, 1), 1) <= 1
both_values = pytest.mark.parametrize('value', ['max', 'expectation'])


def tree_logits(seed, scale=2.0):
  """Random logits [V^T, T, V] that depend on the tokens before, no others."""
  rng = np.random.default_rng(seed)
  out = np.zeros((V**T, T, V), np.float32)
  for t in range(T):
    table = scale * rng.normal(size=(V**t, V))
    out[:, t] = np.repeat(table, V ** (T - t), 0)
  return out


def pick(values):
  """The tokens' entries [V^T, T] of values [V^T, T, V]."""
  index = np.array(TOKENS)[..., None]
  return np.take_along_axis(np.array(values), index, -1)[..., 0]


def after(values):
  """The next step's values where the response goes on, else 0."""
  shifted = np.zeros_like(values)
  shifted[:, :-1] = np.where(MASK[:, 1:], values[:, 1:], 0)
  return shifted


def plain_returns(values, mask, discount=1.0):
  out = np.zeros(values.shape)
  for b, t in zip(*np.nonzero(mask)):
    late = np.arange(values.shape[1] - t)
    out[b, t] = (discount**late * np.where(mask, values, 0)[b, t:]).sum()
  return out


@both_values
def test_induced_reward_is_its_formula(value):
  logits = tree_logits(0)
  for centered in (True, False):
    f = logits - centered * logits.mean(-1, keepdims=True)
    state = f.max(-1)
    if value == 'expectation':  # Of the next step's softmax, not of this one's.
      state = (np.array(jax.nn.softmax(logits)) * f).sum(-1)
    got = losses.induced_reward(
      logits, TOKENS, MASK, value=value, centered=centered
    )
    expected = np.where(MASK, pick(f) - after(state), 0)
    np.testing.assert_allclose(got, expected, atol=2e-6)


@both_values
def test_centred_reward_is_blind_to_a_constant_a_step(value):
  logits = tree_logits(1)
  reward = functools.partial(losses.induced_reward, value=value)
  shift = 50 * np.random.default_rng(2).normal(size=(V**T, T, 1))
  shifted = (logits + shift).astype(np.float32)
  before = reward(logits, TOKENS, MASK)
  # Adding about 100 rounds the logits to 4e-6.
  np.testing.assert_allclose(reward(shifted, TOKENS, MASK), before, atol=3e-5)
  moved = reward(shifted, TOKENS, MASK, centered=False)
  assert np.abs(moved - before).max() > 10


def test_return_compares_what_follows_with_the_greedy_choice():
  logits = tree_logits(3)
  log_p = np.array(jax.nn.log_softmax(logits))
  f = logits - logits.mean(-1, keepdims=True)
  reward = losses.induced_reward(logits, TOKENS, MASK)
  regret = np.where(MASK, pick(log_p) - log_p.max(-1), 0)
  later = plain_returns(regret, MASK) - regret
  returns = losses.reward_to_go(reward, MASK)
  np.testing.assert_allclose(
    returns, np.where(MASK, pick(f) + later, 0), atol=5e-6
  )
  assert (returns <= np.where(MASK, pick(f), 0) + 1e-5).all()


def backward_induction(reward, value):
  """Q(s, a) = reward(s, a) + value(Q(s', .)) on the tree of all responses."""
  q = np.array(reward, np.float64)
  for t in reversed(range(T - 1)):
    # The state after each of the V tokens, at the rows of that prefix.
    blocks = q[:, t + 1].reshape(V**t, V, V ** (T - t - 1), V)[:, :, 0]
    values = value(blocks) * (np.arange(V) != EOS)
    q[:, t] += np.repeat(values, V ** (T - t), 0)
  return q


def test_optimal_teacher_gives_its_reward_back_up_to_potentials():
  truth = tree_logits(4, scale=1.0)
  q = backward_induction(truth, lambda blocks: blocks.max(-1))
  # The softmax of the logits says nothing about such a constant.
  potential = tree_logits(5)[..., 0]
  logits = (q + potential[..., None]).astype(np.float32)
  got = losses.induced_reward(logits, TOKENS, MASK, centered=False)
  expected = pick(truth) + potential - after(potential)
  np.testing.assert_allclose(got, np.where(MASK, expected, 0), atol=5e-6)
  # Centred, the potential is another, and is gone from what all tokens of a
  # state have in common.
  centred = losses.induced_reward(logits, TOKENS, MASK)
  potential = -q.mean(-1)
  expected = pick(truth) + potential - after(potential)
  np.testing.assert_allclose(centred, np.where(MASK, expected, 0), atol=5e-6)


def test_soft_optimal_teacher_is_off_by_what_max_lacks_of_logsumexp():
  truth = tree_logits(6, scale=1.0)

  def soft(blocks):
    return np.log(np.exp(blocks).sum(-1))

  q = backward_induction(truth, soft)
  got = losses.induced_reward(
    q.astype(np.float32), TOKENS, MASK, centered=False
  )
  gap = after(soft(q) - q.max(-1))
  assert (gap >= 0).all() and 0.1 < gap.max() <= np.log(V)
  np.testing.assert_allclose(
    got, np.where(MASK, pick(truth) + gap, 0), atol=5e-6
  )


@both_values
def test_missing_tokens_take_no_part(value):
  logits = tree_logits(7)
  wide = np.full((*logits.shape[:-1], V + 2), -INF, np.float32)
  wide[..., :V] = logits
  for missing in (-INF, -1e9, np.finfo(np.float32).min):
    wide[..., V:] = missing
    for function in (
      lambda f: losses.induced_reward(f, TOKENS, MASK, value=value),
      losses.teacher_baseline,
    ):
      np.testing.assert_allclose(function(wide), function(logits), atol=3e-6)


@both_values
def test_tokens_that_the_teacher_lacks_are_finite_and_bad(value):
  logits = np.zeros((5, 2, V), np.float32)
  logits[0, 0, 2] = -INF  # Taken.
  logits[1, 0] = -INF  # None to take.
  logits[2, 0, 0] = INF
  logits[3, 1, :] = [3e38, -3e38, 0]
  tokens = np.array([[2, 0]] * 4 + [[-100, 3]])
  mask = np.ones((5, 2), bool)
  reward = losses.induced_reward(logits, tokens, mask, value=value)
  assert np.isfinite(reward).all()
  assert reward[0, 0] < -9e8 and (reward[4] < -9e8).all()
  for made in (
    losses.reward_to_go(reward, mask),
    losses.sparse_reward(reward, mask),
    losses.whiten(losses.reward_to_go(reward, mask), mask),
    losses.teacher_baseline(logits),
  ):
    assert np.isfinite(made).all()


def test_baseline_is_the_expected_logit():
  logits = tree_logits(8)
  p = np.array(jax.nn.softmax(logits))
  for centered in (True, False):
    f = logits - centered * logits.mean(-1, keepdims=True)
    got = losses.teacher_baseline(logits, centered=centered)
    np.testing.assert_allclose(got, (p * f).sum(-1), atol=2e-6)


def test_reverse_kl_reward_sums_to_the_divergence_of_sequences():
  teacher, student = tree_logits(9), tree_logits(10)
  log_p, log_q = (np.array(jax.nn.log_softmax(x)) for x in (teacher, student))
  reward = losses.reverse_kl_reward(pick(log_p), pick(log_q), MASK)
  q = np.exp(np.where(MASK, pick(log_q), 0).sum(-1))
  one_each = (np.array(TOKENS) == 0) | np.array(MASK)  # Zeros after the end.
  q = q * one_each.all(-1)
  np.testing.assert_allclose(q.sum(), 1, rtol=1e-5)
  # Chain rule: each token's divergence, at the states that q reaches.
  per_token = np.where(MASK, divergences.reverse_kl(student, teacher), 0)
  np.testing.assert_allclose(
    -(q * np.array(reward).sum(-1)).sum(),
    (q * per_token.sum(-1)).sum(),
    rtol=1e-5,
  )


def test_reverse_kl_reward_scales_then_clips():
  teacher = jnp.array([[-1.0, -1.0, -INF, -1.0, -INF]])
  student = jnp.array([[-2.0, -41.0, -1.0, -INF, -INF]])
  mask = jnp.ones((1, 5), bool)
  reward = functools.partial(losses.reverse_kl_reward, teacher, student, mask)
  np.testing.assert_allclose(
    reward(scale=0.5, clip=60.0), [[2, 60, -60, 60, 0]]
  )
  np.testing.assert_allclose(
    jax.jit(lambda s, c: reward(scale=s, clip=c))(0.5, 100.0),
    [[2, 80, -100, 100, 0]],
  )
  assert np.isfinite(reward(scale=1e-9)).all()


@pytest.mark.parametrize('discount', [1.0, 0.9, 0.0])
def test_returns_discount_relative_to_the_position(discount):
  rng = np.random.default_rng(11)
  reward = rng.normal(size=(5, 6)).astype(np.float32)
  mask = np.zeros((5, 6), bool)
  for b, (start, end) in enumerate([(0, 6), (0, 1), (2, 5), (5, 6), (0, 0)]):
    mask[b, start:end] = True
  expected = plain_returns(reward, mask, discount)
  got = jax.jit(losses.reward_to_go)(reward, mask, discount)  # Traced.
  np.testing.assert_allclose(got, expected, atol=1e-5)
  np.testing.assert_allclose(
    losses.reward_to_go(reward, mask, discount, length_normalized=True),
    expected / np.maximum(plain_returns(np.ones((5, 6)), mask), 1),
    atol=1e-5,
  )


def test_sparse_reward_makes_every_return_the_total():
  reward = tree_logits(12)[..., 0]
  sparse = losses.sparse_reward(reward, MASK)
  last = np.array(MASK).sum(-1) - 1
  total = np.where(MASK, reward, 0).sum(-1)
  np.testing.assert_allclose(sparse[np.arange(V**T), last], total, rtol=1e-5)
  assert (np.count_nonzero(sparse, axis=-1) <= 1).all()
  np.testing.assert_allclose(
    losses.reward_to_go(sparse, MASK),
    np.where(MASK, total[:, None], 0),
    rtol=1e-5,
  )


def test_whitened_values_have_unit_variance_over_the_batch():
  rng = np.random.default_rng(13)
  values = (30 + 5 * rng.normal(size=MASK.shape)).astype(np.float32)
  for shift_mean in (True, False):
    got = losses.whiten(values, MASK, shift_mean=shift_mean)
    kept = np.array(got)[MASK]
    mean = 0 if shift_mean else values[MASK].mean()
    np.testing.assert_allclose(kept.mean(), mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kept.std(), 1, rtol=1e-4)
    np.testing.assert_array_equal(np.array(got)[~MASK], 0)
    scaled = np.diff(values[MASK]) / values[MASK].std()
    np.testing.assert_allclose(np.diff(kept), scaled, rtol=1e-3, atol=1e-5)


def test_equal_values_whiten_to_exactly_zero():
  # A float32 sum of many, divided by their number, is another number.
  values = jnp.full((7, 11), 100.1)
  mask = jnp.ones((7, 11), bool).at[3, 2:].set(False)
  np.testing.assert_array_equal(losses.whiten(values, mask), 0)
  np.testing.assert_array_equal(losses.whiten(values[:1, :1], mask[:1, :1]), 0)


def test_group_advantages_are_standard_scores():
  rng = np.random.default_rng(14)
  reward = rng.normal(size=12).astype(np.float32)
  groups = reward.reshape(3, 4)
  centred = groups - groups.mean(-1, keepdims=True)
  scaled = centred / (groups.std(-1, ddof=1, keepdims=True) + 1e-4)
  got = losses.group_advantages(reward, 4)
  np.testing.assert_allclose(got, scaled.reshape(-1), atol=1e-5)
  got = losses.group_advantages(reward, 4, scale=False)
  np.testing.assert_allclose(got, centred.reshape(-1), atol=1e-6)


@pytest.mark.parametrize('scale', [True, False])
def test_groups_of_equals_have_exactly_no_advantage(scale):
  # 0.1 * 7 / 7 is not 0.1 in float32.
  for level in (0.1, 1 / 3, 1e6 / 3, -1e9, -INF):
    reward = jnp.full(14, level, jnp.float32)
    got = jax.jit(lambda r: losses.group_advantages(r, 7, scale=scale))(reward)
    np.testing.assert_array_equal(got, 0)


# What each makes of two [B, T] arrays and a mask.
EACH = {
  'induced': lambda x, y, m: losses.induced_reward(
    jnp.stack([x, y], -1), (y > 0).astype(int), m
  ),
  'expectation': lambda x, y, m: losses.induced_reward(
    jnp.stack([x, y], -1), (y > 0).astype(int), m, value='expectation'
  ),
  'reverse_kl': lambda x, y, m: losses.reverse_kl_reward(x, y, m, clip=1.0),
  'sparse': lambda x, y, m: losses.sparse_reward(x, m),
  'to_go': lambda x, y, m: losses.reward_to_go(x, m, 0.9),
  'normalized': lambda x, y, m: losses.reward_to_go(
    x, m, length_normalized=True
  ),
  'whiten': lambda x, y, m: losses.whiten(x, m),
  'whiten_shifted': lambda x, y, m: losses.whiten(x, m, shift_mean=False),
}
each = pytest.mark.parametrize('function', EACH.values(), ids=EACH.keys())


def two(seed, shape):
  return jnp.float32(np.random.default_rng(seed).normal(size=(2, *shape)))


@each
def test_masked_tokens_never_matter(function):
  x, y = two(15, MASK.shape)
  clean = function(x, y, MASK)
  np.testing.assert_array_equal(np.array(clean)[~MASK], 0)
  assert np.abs(clean).max() > 0.1
  for junk in (np.nan, INF, -INF):
    broken = [jnp.where(MASK, values, junk) for values in (x, y)]
    np.testing.assert_array_equal(function(*broken, MASK), clean)
  np.testing.assert_array_equal(function(x, y, jnp.zeros_like(MASK)), 0)


@each
def test_no_gradient_passes(function):
  x, y = two(16, MASK.shape)
  grads = jax.grad(lambda *xy: function(*xy, MASK).sum(), (0, 1))(x, y)
  np.testing.assert_array_equal(jnp.stack(grads), 0)


@each
def test_bfloat16_is_computed_in_float32(function):
  x, y = jnp.bfloat16(two(17, MASK.shape))
  got = function(x, y, MASK)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(
    got, function(jnp.float32(x), jnp.float32(y), MASK)
  )


@pytest.mark.parametrize('name', EACH)
def test_jit_eager_and_vmap_agree(name):
  x, y = two(18, MASK.shape)
  if name.startswith('whiten'):  # The batch is what it is about: map batches.
    stack = [v[None] for v in (x, y, MASK)]
    function = lambda *args: jax.vmap(EACH[name])(*args)
    return testing.assert_transforms_agree(function, *stack)
  return testing.assert_transforms_agree(EACH[name], x, y, MASK)


@each
def test_one_token_rows(function):
  x, y = two(19, (4, 1))
  assert np.isfinite(function(x, y, jnp.ones((4, 1), bool))).all()
  np.testing.assert_array_equal(function(x, y, jnp.zeros((4, 1), bool)), 0)


def test_nan_on_the_mask_is_not_hidden():
  logits = tree_logits(20)
  logits[5, 1, 2] = np.nan
  got = losses.induced_reward(logits, TOKENS, jnp.ones_like(MASK))
  # The step before looks at its value.
  assert np.isnan(got[5, :2]).all() and np.isfinite(got[5, 2])
  assert np.isfinite(np.delete(got, 5, 0)).all()


ONE = jnp.zeros((2, 3))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: losses.induced_reward(ONE[..., None], ONE, ONE, value='min'),
      "'max' or 'expectation', got 'min'",
    ),
    (
      lambda: losses.induced_reward(ONE, ONE, ONE),
      r'teacher_logits.*\(2,\) beside \(2, 3\)',
    ),
    (lambda: losses.sparse_reward(ONE, ONE[0]), r'mask.*\(3,\)'),
    (lambda: losses.reward_to_go(ONE, ONE, 1.5), r'\[0, 1\], got 1.5'),
    (
      lambda: losses.reverse_kl_reward(ONE, ONE[:1], ONE),
      r'student_logprobs.*\(1, 3\)',
    ),
    (
      lambda: losses.reverse_kl_reward(ONE, ONE, ONE, clip=-1.0),
      'clip must be positive, got -1.0',
    ),
    (lambda: losses.group_advantages(ONE, 2), r'\[B\], got shape \(2, 3\)'),
    (lambda: losses.group_advantages(ONE[0], 2), 'got 2 for 3'),
    (lambda: losses.group_advantages(ONE[0], 1), 'at least 2.*got 1'),
  ],
)
def test_bad_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
