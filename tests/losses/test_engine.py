"""ENGINE's energy: reverse KL less the student's entropy, soft and hard."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing

INF = np.inf
hard = functools.partial(losses.engine, straight_through=True)
both = pytest.mark.parametrize('loss', [losses.engine, hard])


def logits(seed, shape=(4, 7)):
  rng = np.random.default_rng(seed)
  return (2 * rng.normal(size=(2, *shape))).astype(np.float32)


def entropy(logits):
  log_q = jax.nn.log_softmax(logits)
  return -(jnp.exp(log_q) * log_q).sum(-1)


@pytest.mark.parametrize('temperature', [1.0, 0.5, 3.0])
def test_reverse_kl_is_the_energy_less_the_entropy(temperature):
  student, teacher = logits(0)

  def difference(student, temperature):
    energy = losses.engine(student, teacher, temperature=temperature)
    return energy - entropy(student / temperature)

  def reverse(student, temperature):
    return losses.reverse_kl(student, teacher, temperature=temperature)

  at = student, np.float32(temperature)
  assert difference(*at).shape == (4,)
  np.testing.assert_allclose(difference(*at), reverse(*at), rtol=1e-5)
  grads = [
    jax.jit(jax.grad(lambda *at, f=f: f(*at).sum(), (0, 1)))(*at)
    for f in (difference, reverse)
  ]
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), *grads
  )


def test_finite_differences():
  student, teacher = logits(1)
  testing.assert_gradient(
    lambda s: losses.engine(s, teacher).sum(), student, key=jax.random.key(0)
  )


def test_straight_through_values_the_choice_and_keeps_the_soft_gradient():
  student, teacher = logits(2)
  value, pull = jax.vjp(lambda s: hard(s, teacher), student)
  expected = losses.cross_entropy(jnp.array(teacher), student.argmax(-1))
  np.testing.assert_allclose(value, expected, rtol=1e-6)

  def literal(student):
    q = jax.nn.softmax(student)
    one_hot = jax.nn.one_hot(student.argmax(-1), 7)
    passed = one_hot + q - jax.lax.stop_gradient(q)
    return -(passed * jax.nn.log_softmax(teacher)).sum(-1)

  _, literal_pull = jax.vjp(literal, student)
  _, soft_pull = jax.vjp(lambda s: losses.engine(s, teacher), student)
  cotangent = np.random.default_rng(0).normal(size=4).astype(np.float32)
  for other in (literal_pull, soft_pull):
    np.testing.assert_allclose(
      pull(cotangent)[0], other(cotangent)[0], rtol=1e-4, atol=1e-6
    )


def test_straight_through_differentiates_the_temperature_too():
  student, teacher = logits(3)
  both_ways = student / 2, teacher / 2  # twice as cold is the same as this

  def literal(temperature):
    q = jax.nn.softmax(student / temperature)
    passed = jax.nn.one_hot(student.argmax(-1), 7)
    passed += q - jax.lax.stop_gradient(q)
    log_p = jax.nn.log_softmax(teacher / temperature)
    return -(passed * log_p).sum()

  grad = jax.grad(lambda t: hard(student, teacher, temperature=t).sum())(2.0)
  np.testing.assert_allclose(grad, jax.grad(literal)(2.0), rtol=1e-4)
  np.testing.assert_allclose(
    hard(student, teacher, temperature=2.0), hard(*both_ways), rtol=1e-5
  )


def test_without_the_entropy_it_collapses():
  """The energy is least where the student has but the teacher's best token."""
  _, teacher = logits(4)
  best = np.where(teacher == teacher.max(-1, keepdims=True), 0, -INF)
  least = losses.engine(jnp.float32(best), teacher)
  np.testing.assert_allclose(
    least, -jax.nn.log_softmax(teacher).max(-1), rtol=1e-6
  )
  assert (least < losses.engine(teacher, teacher)).all()


@both
def test_infinite_exactly_where_it_is_and_never_nan(loss):
  student = jnp.float32([[2, 1, 0], [1, 2, 0], [0, 1, -INF], [3e38, -3e38, 0]])
  teacher = jnp.float32([[0, 0, -INF], [0, -INF, 0], [0, 0, -INF], [0, 0, 0]])
  infinite = {losses.engine: [1, 1, 0, 0], hard: [0, 1, 0, 0]}[loss]
  value = loss(student, teacher)
  np.testing.assert_array_equal(value == INF, infinite)
  assert not np.isnan(value).any()
  grad = jax.grad(lambda s: loss(s, teacher).sum())(student)
  assert np.isfinite(grad).all()


def test_an_infinite_summand_adds_no_gradient():
  student = jnp.float32([2, 1, 0])
  grad = jax.grad(losses.engine)(student, jnp.float32([0, 1, -INF]))
  q = jax.nn.softmax(student)
  energy = jnp.append(-jax.nn.log_softmax(jnp.float32([0, 1])), 0)
  np.testing.assert_allclose(grad, q * (energy - q @ energy), rtol=1e-5)


@both
def test_nan_tokens_the_teacher_and_bfloat16(loss):
  student, teacher = logits(5)
  student[1, 2] = teacher[2, 0] = np.nan
  value = loss(student, teacher)
  np.testing.assert_array_equal(np.isnan(value), [0, 1, 1, 0])
  grads = jax.grad(lambda s, t: loss(s, t).sum(), (0, 1))(student, teacher)
  np.testing.assert_array_equal(grads[0][1:3], 0)
  assert np.isfinite(grads[0]).all() and (grads[0][0] != 0).any()
  np.testing.assert_array_equal(grads[1], 0)
  student, teacher = jnp.bfloat16(logits(6))
  exact = loss(jnp.float32(student), jnp.float32(teacher))
  np.testing.assert_allclose(loss(student, teacher), exact, rtol=1e-6)
  assert loss(student, teacher).dtype == jnp.float32


@both
def test_jit_eager_and_vmap_agree(loss):
  testing.assert_transforms_agree(loss, *logits(7))


def test_is_no_divergence():
  assert not {'engine', 'dpkd_token'} & set(losses.DIVERGENCES)
