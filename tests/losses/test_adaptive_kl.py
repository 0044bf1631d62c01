"""Adaptive KL by a literal sort in float64, and at its boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing
from kdjax.losses import divergences

INF = np.inf


def logits(seed, shape=(5, 9), scale=2.0):
  rng = np.random.default_rng(seed)
  return (scale * rng.normal(size=(2, *shape))).astype(np.float32)


def softmax(x):
  x = np.exp(np.asarray(x, np.float64))
  return x / x.sum(-1, keepdims=True)


def shares(student, teacher, mu):
  """The two weights of each token, one token after the other."""
  out = []
  for q, p in zip(softmax(student), softmax(teacher)):
    gaps, mass = [0.0, 0.0], 0.0
    for v in sorted(range(p.size), key=lambda v: -p[v]):
      gaps[int(mass >= mu)] += abs(p[v] - q[v])
      mass += p[v]
    out.append(np.array(gaps) / sum(gaps))
  return np.array(out).T


@pytest.mark.parametrize('mu', [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_weighs_both_divergences_by_the_gaps(mu, temperature):
  student, teacher = logits(0)
  head, tail = shares(student / temperature, teacher / temperature, mu)
  assert (tail > 0).all() and (mu == 0 or (head > 0).all())

  def fixed(student):
    """With the weights as constants."""
    both = student, teacher
    forward = losses.forward_kl(*both, temperature=temperature)
    return head * forward + tail * losses.reverse_kl(
      *both, temperature=temperature
    )

  def adaptive(student):
    return losses.adaptive_kl(student, teacher, mu=mu, temperature=temperature)

  value = adaptive(student)
  assert value.shape == (5,) and value.dtype == jnp.float32
  np.testing.assert_allclose(value, fixed(student), rtol=1e-5)
  grad, expected = (
    jax.jit(jax.grad(lambda s, f=f: f(s).sum()))(student)
    for f in (adaptive, fixed)
  )
  np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


# p is in fifths of the whole; which of its tokens are the head.
@pytest.mark.parametrize(
  ('p', 'mu', 'head'),
  [
    ([3, 1, 1], 0.5, [True, False, False]),  # the first crosses mu
    ([2, 2, 1], 0.5, [True, True, False]),  # the second does
    ([1, 2, 2], 0.3, [False, True, True]),  # ties come together
    ([1, 1, 1, 1, 1], 0.1, [True] * 5),
    ([3, 1, 1], 0.0, [False] * 3),
    ([3, 1, 1], 0.7, [True] * 3),
    ([4, 1, 0], 1.0, [True, True, False]),
  ],
)
def test_the_head_holds_the_token_that_crosses_mu_and_ties(p, mu, head):
  p = np.array(p) / np.sum(p)
  # Every token's gap is another power of two: no other head has these weights.
  gaps = 2.0 ** -np.arange(4, 4 + p.size)
  student = np.where(p > 0, p, 0) + gaps
  q = student / student.sum()
  with np.errstate(divide='ignore'):
    teacher, student = np.log(p), np.log(q)
  value = losses.adaptive_kl(jnp.array(student), jnp.array(teacher), mu=mu)
  share = np.abs(p - q)[np.array(head)].sum() / np.abs(p - q).sum()
  forward, reverse = (
    loss(jnp.array(student), jnp.array(teacher))
    for loss in (losses.forward_kl, losses.reverse_kl)
  )
  expected = share * forward + (reverse * (1 - share) if share < 1 else 0)
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_the_order_of_the_vocabulary_does_not_matter():
  student, teacher = logits(1)
  teacher = np.round(teacher)  # with many ties
  order = np.random.default_rng(0).permutation(9)
  np.testing.assert_allclose(
    losses.adaptive_kl(student[:, order], teacher[:, order]),
    losses.adaptive_kl(student, teacher),
    rtol=1e-5,
  )


def test_mu_is_traced_and_one_a_token():
  student, teacher = logits(2)
  mu = np.linspace(0.1, 0.9, 5, dtype=np.float32)
  value = jax.jit(lambda mu: losses.adaptive_kl(student, teacher, mu=mu))(mu)
  for i in (0, 2, 4):
    same = losses.adaptive_kl(student, teacher, mu=float(mu[i]))
    np.testing.assert_allclose(value[i], same[i], rtol=1e-5)
  testing.assert_transforms_agree(
    lambda s, t, mu: losses.adaptive_kl(s, t, mu=mu), student, teacher, mu
  )


def test_nothing_at_all_between_equals():
  student, _ = logits(3)
  value, grad = jax.value_and_grad(
    lambda s: losses.adaptive_kl(s, student).sum()
  )(student)
  assert value == 0
  np.testing.assert_array_equal(grad, 0)


def test_an_infinite_divergence_of_no_weight_is_not_there():
  with np.errstate(divide='ignore'):
    # The heads agree exactly, so forward KL, infinite here, weighs nothing.
    teacher = np.log(np.float32([0.5, 0.25, 0.25]))
    student = np.log(np.float32([0.5, 0.5, 0.0]))
  assert losses.forward_kl(student, teacher) == INF
  value, grad = jax.value_and_grad(losses.adaptive_kl)(student, teacher)
  np.testing.assert_allclose(value, 0.5 * np.log(2), rtol=1e-6)
  expected = jax.grad(losses.reverse_kl)(student, teacher)
  np.testing.assert_allclose(grad, expected, rtol=1e-6)
  assert losses.adaptive_kl(student, teacher, mu=0.9) == INF


def test_edges_have_no_nan():
  rows = np.array(
    [
      [0, 0, 0],
      [0, -INF, 0],
      [-INF, 0, -INF],
      [1e4, 0, -1e4],
      [3e38, -3e38, 0],
      [-INF, -INF, -INF],
      [INF, 0, 0],
    ],
    np.float32,
  )
  student, teacher = np.repeat(rows, 7, 0), np.tile(rows, (7, 1))
  for mu in (0.0, 0.5, 1.0):
    grad, value = jax.jit(
      jax.vmap(
        lambda s, t, mu=mu: (
          jax.grad(losses.adaptive_kl)(s, t, mu=mu),
          losses.adaptive_kl(s, t, mu=mu),
        )
      )
    )(student, teacher)
    assert (value >= 0).all()  # False for NaN.
    assert np.isfinite(grad).all()


def test_a_nan_token_is_nan_without_gradient():
  student, teacher = logits(4)
  student[1, 2] = teacher[1, 3] = teacher[3, 0] = np.nan
  value = losses.adaptive_kl(student, teacher)
  np.testing.assert_array_equal(np.isnan(value), [0, 1, 0, 1, 0])
  grad = jax.grad(lambda s: losses.adaptive_kl(s, teacher).sum())(student)
  np.testing.assert_array_equal(grad[np.array([1, 3])], 0)
  assert np.isfinite(grad).all() and (grad[0] != 0).all()


def test_teacher_has_no_gradient_and_bfloat16_is_computed_in_float32():
  student, teacher = jnp.bfloat16(logits(5))
  grad = jax.grad(lambda t: losses.adaptive_kl(student, t).sum())(teacher)
  np.testing.assert_array_equal(grad, 0)
  value = losses.adaptive_kl(student, teacher)
  assert value.dtype == jnp.float32
  exact = losses.adaptive_kl(jnp.float32(student), jnp.float32(teacher))
  np.testing.assert_allclose(value, exact, rtol=1e-6)


def test_stands_in_the_registry_wherever_it_is_imported_from():
  assert divergences.DIVERGENCES is losses.DIVERGENCES
  assert losses.DIVERGENCES['adaptive_kl'] is losses.adaptive_kl


def test_bad_mu_is_named():
  student, teacher = logits(6)
  with pytest.raises(ValueError, match=r'mu must be in \[0, 1\], got 1.5'):
    losses.adaptive_kl(student, teacher, mu=1.5)
  with pytest.raises(ValueError, match=r'\(3,\) of weight'):
    losses.adaptive_kl(student, teacher, mu=np.ones(3))
