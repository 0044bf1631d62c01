"""Divergences against their formulas in extended precision, and their edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

INF = np.inf
B, T, V = 2, 3, 7

# Every divergence, at the settings that take another path through the code.
CASES = {
  'forward_kl': losses.forward_kl,
  'reverse_kl': losses.reverse_kl,
  'total_variation': losses.total_variation,
  'jsd': functools.partial(losses.generalized_jsd, beta=0.1),
  'normalized_jsd': functools.partial(
    losses.generalized_jsd, beta=1e-6, normalized=True
  ),
  'skew_forward_kl': functools.partial(losses.skew_forward_kl, alpha=0.1),
  'skew_reverse_kl': functools.partial(losses.skew_reverse_kl, alpha=0.1),
}
each = pytest.mark.parametrize('loss', CASES.values(), ids=CASES.keys())


def random_logits(seed, shape=(B, T, V), scale=2.0):
  rng = np.random.default_rng(seed)
  return (scale * rng.normal(size=(2, *shape))).astype(np.float32)


def log_softmax(logits):
  logits = np.asarray(logits, np.longdouble)
  logits = logits - logits.max(-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def kl(log_p, log_q):
  with np.errstate(invalid='ignore'):
    terms = np.exp(log_p) * (log_p - log_q)
  return np.where(np.exp(log_p) > 0, terms, 0).sum(-1)


def reference(loss, student, teacher, temperature=1.0):
  """The formula of a case, in extended precision."""
  log_q = log_softmax(np.asarray(student, np.longdouble) / temperature)
  log_p = log_softmax(np.asarray(teacher, np.longdouble) / temperature)
  name = getattr(loss, 'func', loss).__name__
  options = getattr(loss, 'keywords', {})

  def mix(weight):
    weight = np.longdouble(weight)
    with np.errstate(divide='ignore'):
      return np.logaddexp(np.log(weight) + log_p, np.log1p(-weight) + log_q)

  if name == 'total_variation':
    return 0.5 * np.abs(np.exp(log_p) - np.exp(log_q)).sum(-1)
  if name == 'skew_forward_kl':
    return kl(log_p, mix(options['alpha']))
  if name == 'skew_reverse_kl':
    return kl(log_q, mix(1 - np.longdouble(options['alpha'])))
  beta = options.get('beta', {'forward_kl': 0, 'reverse_kl': 1}.get(name))
  if beta in (0, 1):
    return kl(log_q, log_p) if beta else kl(log_p, log_q)
  beta = np.longdouble(beta)
  value = beta * kl(log_p, mix(beta)) + (1 - beta) * kl(log_q, mix(beta))
  return value / (beta * (1 - beta)) if options.get('normalized') else value


def finite_difference(function, x, step=1e-4):
  """d sum(function(x)) / dx; `step` leaves 1e-8 in extended precision."""
  x = np.asarray(x, np.longdouble)
  out = np.zeros(x.shape)
  for v in range(x.shape[-1]):
    shift = np.zeros(x.shape[-1])
    shift[v] = step
    change = function(x + shift) - function(x - shift)
    out[..., v] = change / (2 * step)
  return out


@functools.cache
def compiled(loss):
  """(student, temperature [...], teacher) -> three gradients and the value."""

  def summed(student, temperature, teacher):
    value = loss(student, teacher, temperature=temperature)
    return value.sum(), value

  return jax.jit(jax.grad(summed, (0, 1, 2), has_aux=True))


def value_and_grad(loss, student, teacher, temperature=1.0):
  temperature = np.full(student.shape[:-1], temperature, np.float32)
  grads, value = compiled(loss)(student, temperature, teacher)
  np.testing.assert_array_equal(grads[2], 0, 'a gradient to the teacher')
  return np.array(value), np.array(grads[0])


@each
@pytest.mark.parametrize('temperature', [1.0, 0.5, 3.0])
def test_value_and_gradient_are_the_formulas(loss, temperature):
  student, teacher = random_logits(0)
  value, grad = value_and_grad(loss, student, teacher, temperature=temperature)
  exact = functools.partial(
    reference, loss, teacher=teacher, temperature=temperature
  )
  assert value.shape == (B, T) and value.dtype == np.float32
  np.testing.assert_allclose(
    value, exact(student).astype(float), rtol=1e-5, atol=1e-9
  )
  np.testing.assert_allclose(
    grad, finite_difference(exact, student), rtol=1e-4, atol=2e-6
  )


@each
def test_jit_eager_and_vmap_agree(loss):
  student, teacher = random_logits(1)
  jitted, _ = value_and_grad(loss, student, teacher)
  np.testing.assert_allclose(loss(student, teacher), jitted, rtol=1e-5)
  mapped = jax.jit(jax.vmap(jax.vmap(loss)))(student, teacher)
  np.testing.assert_allclose(mapped, jitted, rtol=1e-5)


@each
def test_nothing_at_all_between_equals(loss):
  logits, _ = random_logits(2)
  value, grad = value_and_grad(loss, logits, logits)
  np.testing.assert_array_equal(value, 0)
  np.testing.assert_array_equal(grad, 0)


@each
def test_never_negative_and_blind_to_a_constant(loss):
  for seed in range(20):
    student, teacher = random_logits(seed, scale=0.01)
    value, _ = value_and_grad(loss, student, teacher)
    assert (value >= 0).all()
    # Adding 4 rounds the logits to 2e-7, in total variations of about 4e-3.
    moved, _ = value_and_grad(loss, student + 0.5, teacher - 4)
    np.testing.assert_allclose(moved, value, rtol=1e-3)


@each
def test_bfloat16_is_computed_in_float32(loss):
  student, teacher = random_logits(5)
  student, teacher = jnp.bfloat16(student), jnp.bfloat16(teacher)
  value, grad = value_and_grad(loss, student, teacher)
  exact, exact_grad = value_and_grad(
    loss, student.astype(jnp.float32), teacher.astype(jnp.float32)
  )
  assert value.dtype == jnp.float32 and grad.dtype == jnp.bfloat16
  np.testing.assert_allclose(value, exact, rtol=1e-6)
  np.testing.assert_array_equal(grad, exact_grad.astype(jnp.bfloat16))


# Rows of three logits: (student, teacher, forward KL, reverse KL), None where
# float32 can hold no more than "large".
EDGES = {
  'teacher lacks': ([0, 0, 0], [0, 0, -INF], np.log(1.5), INF),
  'student lacks': ([0, 0, -INF], [0, 0, 0], INF, np.log(1.5)),
  'both lack': ([0, 0, -INF], [0, 0, -INF], 0, 0),
  'each lacks': ([-INF, 0, 0], [0, 0, -INF], INF, INF),
  'one-hot teacher': ([0, 0, 0], [0, -INF, -INF], np.log(3), INF),
  'one-hot student': ([-INF, -INF, 0], [0, 0, 0], INF, np.log(3)),
  'same one-hot': ([-INF, -INF, 0], [-INF, -INF, 0], 0, 0),
  'other one-hot': ([-INF, -INF, 0], [0, -INF, -INF], INF, INF),
  'large': ([1e4, 0, -1e4], [0, 1e4, -1e4], 1e4, 1e4),
  'larger': ([3e38, 0, 0], [0, 3e38, 0], 3e38, 3e38),
  'both ways': ([3e38, -3e38, 0], [-3e38, 3e38, 0], None, None),
  'same large': ([3e38, -3e38, 0], [3e38, -3e38, 0], 0, 0),
  'large and none': ([3e38, -INF, 0], [-3e38, -3e38, -INF], INF, None),
  'low': ([-3e38, -3e38, 0], [-1e4, -INF, 0], 0, 0),
  'infinite': ([INF, 0, 0], [0, 0, 0], None, None),
}


def test_infinite_exactly_where_the_divergence_is():
  student, teacher = (
    np.array([row[i] for row in EDGES.values()], np.float32) for i in (0, 1)
  )
  for loss, column in ((losses.forward_kl, 2), (losses.reverse_kl, 3)):
    value, _ = value_and_grad(loss, student, teacher)
    for name, row, got in zip(EDGES, EDGES.values(), value):
      if row[column] is not None:
        np.testing.assert_allclose(got, row[column], rtol=1e-5, err_msg=name)


@each
def test_edges_have_no_nan_in_value_or_gradient(loss):
  student, teacher = (
    np.array([row[i] for row in EDGES.values()], np.float32) for i in (0, 1)
  )
  for temperature in (1.0, 0.5, 2.0):
    temperatures = np.full(len(EDGES), temperature, np.float32)
    grads, value = compiled(loss)(student, temperatures, teacher)
    assert (value >= 0).all()  # False for NaN.
    assert np.isfinite(grads[0]).all()
    assert not np.isnan(grads[1]).any()
    np.testing.assert_array_equal(grads[2], 0)


@each
def test_missing_tokens_cost_what_vanishing_ones_do(loss):
  student, teacher = random_logits(11)
  student[..., 0] = teacher[..., 1] = -INF
  student[..., 2] = teacher[..., 2] = -INF
  value, grad = value_and_grad(loss, student, teacher)
  # Far below what float32 can hold, and a student that goes there last.
  limit, limit_grad = value_and_grad(
    loss, np.maximum(student, -1e6), np.maximum(teacher, -1e6)
  )
  if np.isinf(value).all():
    assert (limit > 1e4).all()
  else:
    np.testing.assert_allclose(value, limit, rtol=1e-5)
    np.testing.assert_allclose(grad, limit_grad, rtol=1e-5, atol=1e-7)


@each
def test_a_nan_token_is_nan_and_leaves_the_others_alone(loss):
  student, teacher = random_logits(6)
  clean, clean_grad = value_and_grad(loss, student, teacher)
  for broken in (student, teacher):
    saved = broken[0, 1, 2]
    broken[0, 1, 2] = np.nan
    value, grad = value_and_grad(loss, student, teacher)
    broken[0, 1, 2] = saved
    assert np.isnan(value[0, 1])
    np.testing.assert_array_equal(grad[0, 1], 0)
    value[0, 1], grad[0, 1] = clean[0, 1], clean_grad[0, 1]
    np.testing.assert_allclose(value, clean, rtol=1e-6)
    np.testing.assert_allclose(grad, clean_grad, rtol=1e-6)


def test_forward_kl_gradient_has_no_temperature_squared():
  student, teacher = random_logits(7)
  _, grad = value_and_grad(losses.forward_kl, student, teacher, temperature=4.0)
  p, q = jax.nn.softmax(teacher / 4), jax.nn.softmax(student / 4)
  np.testing.assert_allclose(grad, (q - p) / 4, rtol=1e-5, atol=1e-8)


def test_temperature_per_token_and_traced():
  student, teacher = random_logits(8)
  temperature = np.linspace(0.5, 3, B * T, dtype=np.float32).reshape(B, T)
  value = jax.jit(
    lambda t: losses.generalized_jsd(student, teacher, temperature=t)
  )(temperature)
  for b, t in np.ndindex(B, T):
    same = losses.generalized_jsd(
      student, teacher, temperature=float(temperature[b, t])
    )
    np.testing.assert_allclose(value[b, t], same[b, t], rtol=1e-5)


@each
def test_temperature_gradient_is_the_derivative(loss):
  student, teacher = random_logits(9)
  temperature = np.full((B, T), 1.3, np.float32)
  grads, _ = compiled(loss)(student, temperature, teacher)
  exact = reference(loss, student, teacher, 1.3 + 1e-5)
  exact = (exact - reference(loss, student, teacher, 1.3 - 1e-5)) / 2e-5
  np.testing.assert_allclose(
    grads[1], exact.astype(float), rtol=1e-3, atol=1e-6
  )


def test_registry_calls_every_divergence_alike():
  student, teacher = random_logits(10)
  for name, loss in losses.DIVERGENCES.items():
    assert loss is getattr(losses, name)
    assert loss(student, teacher, temperature=2.0).shape == (B, T)


@pytest.mark.parametrize(
  ('shapes', 'options', 'message'),
  [
    (((2, 7), (2, 8)), {}, r'share one vocabulary.*\(2, 7\) and \(2, 8\)'),
    (((2, 7), (3, 7)), {}, 'broadcast'),
    (((2, 7), (2, 7)), {'temperature': 0.0}, 'positive, got 0.0'),
    (((2, 7), (2, 7)), {'temperature': np.ones(3)}, 'broadcast'),
    (((2, 7), (2, 7)), {'beta': np.ones(3)}, r'\(3,\) of weight'),
    (((2, 7), (2, 7)), {'beta': 1.5}, r'beta must be in \[0, 1\], got 1.5'),
    (((2, 7), (2, 7)), {'alpha': -1}, r'alpha must be in \[0, 1\], got -1'),
  ],
)
def test_bad_arguments_are_named(shapes, options, message):
  name = 'skew_reverse_kl' if 'alpha' in options else 'generalized_jsd'
  with pytest.raises(ValueError, match=message):
    losses.DIVERGENCES[name](
      jnp.zeros(shapes[0]), jnp.zeros(shapes[1]), **options
    )
