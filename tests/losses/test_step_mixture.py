"""Step sums against divergences of whole responses, by enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing, types
from kdjax.losses import masked_sum

V, T, EOS = 3, 3, 1


def every_response():
  """All responses of at most T tokens that end with EOS, where they end."""
  tokens = testing.responses(V, T)
  ended = np.cumsum(tokens == EOS, -1) - (tokens == EOS) > 0
  one_each = ~(ended & (tokens != 0)).any(-1)
  return tokens[one_each], ~ended[one_each]


LABELS, MASK = every_response()


@functools.cache
def language_models():
  """A student's parameters, its logits by them, and a teacher's logits."""
  prompt = types.Prompt(jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool))
  prompt = jax.tree.map(lambda x: x.repeat(len(LABELS), 0), prompt)
  model, params = testing.tabular(jax.random.key(0), vocab_size=V, width=4)
  _, teacher = testing.tabular(jax.random.key(1), vocab_size=V, width=4)

  def logits(params):
    return model.head(params, model.hidden_states(params, prompt, LABELS))

  return params, logits, logits(teacher)


def log_prob(logits):
  value = losses.cross_entropy(logits, LABELS)
  return -jnp.where(MASK, value, 0).sum(-1)


def sequence_kl(log_p, log_q):
  return (jnp.exp(log_p) * (log_p - log_q)).sum()


def mixed(log_p, log_q):
  return jnp.logaddexp(log_p, log_q) - jnp.log(2.0)


def along(logits, values):
  """The expected sum over steps, on responses that the logits' model says."""
  weights = jax.lax.stop_gradient(jnp.exp(log_prob(logits)))
  return masked_sum(values * weights[:, None], MASK)


@functools.cache
def case():
  params, logits, teacher = language_models()
  student = logits(params)
  return student, teacher, log_prob(student), log_prob(teacher)


def test_the_enumeration_is_complete():
  student, teacher, log_q, log_p = case()
  assert len(LABELS) == 15  # 1 + 2 that end early, 4 prefixes times 3
  for log in (log_q, log_p):
    np.testing.assert_allclose(jnp.exp(log).sum(), 1, rtol=1e-5)


def jensen_shannon_steps(alpha):
  student, teacher, _, _ = case()
  return 0.5 * along(
    teacher, losses.skew_forward_kl(student, teacher, alpha=alpha)
  ) + 0.5 * along(
    student, losses.skew_reverse_kl(student, teacher, alpha=1 - alpha)
  )


def test_steps_add_up_to_the_jensen_shannon_divergence_of_responses():
  student, teacher, log_q, log_p = case()
  m = mixed(log_p, log_q)
  whole = 0.5 * sequence_kl(log_p, m) + 0.5 * sequence_kl(log_q, m)
  exact = losses.step_mixture(student, teacher, LABELS, MASK)
  np.testing.assert_allclose(jensen_shannon_steps(exact), whole, rtol=1e-5)
  # f-distill's plain average does not, by far more than rounding.
  plain = jensen_shannon_steps(np.full(MASK.shape, 0.5, np.float32))
  assert abs(plain - whole) > 0.01


def test_either_side_is_a_divergence_of_responses():
  student, teacher, log_q, log_p = case()
  w = losses.step_mixture(student, teacher, LABELS, MASK)
  m = mixed(log_p, log_q)
  forward = losses.skew_forward_kl(student, teacher, alpha=w)
  reverse = losses.skew_reverse_kl(student, teacher, alpha=1 - w)
  np.testing.assert_allclose(
    along(teacher, forward), sequence_kl(log_p, m), rtol=1e-5
  )
  np.testing.assert_allclose(
    along(student, reverse), sequence_kl(log_q, m), rtol=1e-5
  )


def test_kl_and_reverse_kl_add_up_and_total_variation_bounds():
  student, teacher, log_q, log_p = case()
  np.testing.assert_allclose(
    along(teacher, losses.forward_kl(student, teacher)),
    sequence_kl(log_p, log_q),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    along(student, losses.reverse_kl(student, teacher)),
    sequence_kl(log_q, log_p),
    rtol=1e-5,
  )
  steps = losses.total_variation(student, teacher)
  bound = 0.5 * (along(teacher, steps) + along(student, steps))
  whole = 0.5 * jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)).sum()
  assert whole < bound - 0.01


def test_gradient_on_the_teachers_responses_is_exact_through_the_weight():
  params, logits, teacher = language_models()
  log_p = log_prob(teacher)

  def steps(params, cut):
    student = logits(params)
    w = losses.step_mixture(cut(student), teacher, LABELS, MASK)
    return along(teacher, losses.skew_forward_kl(student, teacher, alpha=w))

  def whole(params):
    return sequence_kl(log_p, mixed(log_p, log_prob(logits(params))))

  expected, _ = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(whole))(params))
  gradient = lambda cut: jax.flatten_util.ravel_pytree(
    jax.jit(jax.grad(steps), static_argnums=1)(params, cut)
  )[0]
  np.testing.assert_allclose(
    gradient(lambda x: x), expected, rtol=1e-4, atol=1e-6
  )
  # With the weight cut off, it is not.
  gap = jnp.linalg.norm(gradient(jax.lax.stop_gradient) - expected)
  assert gap > 0.05 * jnp.linalg.norm(expected)


def test_weights_are_the_share_of_the_prefix():
  student, teacher, _, _ = case()
  w = losses.step_mixture(student, teacher, LABELS, MASK)
  p, q = jax.nn.softmax(teacher), jax.nn.softmax(student)
  for row, labels in enumerate(LABELS):
    prefix_p = prefix_q = 1.0
    for t in range(T):
      share = prefix_p / (prefix_p + prefix_q)
      np.testing.assert_allclose(w[row, t], share, rtol=1e-5)
      if MASK[row, t]:
        prefix_p *= float(p[row, t, labels[t]])
        prefix_q *= float(q[row, t, labels[t]])


def test_teacher_has_no_gradient_and_the_student_has():
  student, teacher, _, _ = case()
  grads = jax.grad(
    lambda s, t: losses.step_mixture(s, t, LABELS, MASK).sum(), (0, 1)
  )(student, teacher)
  assert (grads[0] != 0).any()
  np.testing.assert_array_equal(grads[1], 0)
  testing.assert_gradient(
    lambda s: losses.step_mixture(s, teacher, LABELS, MASK).sum(),
    student,
    key=jax.random.key(2),
  )


@pytest.mark.parametrize('junk', [np.nan, np.inf, -np.inf])
def test_masked_tokens_never_matter(junk):
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 2, 5, V)).astype(np.float32)
  labels = rng.integers(V, size=(2, 5))
  mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)
  run = jax.jit(
    jax.value_and_grad(
      lambda *args: losses.step_mixture(*args, mask).sum(), argnums=0
    )
  )
  value, grad = run(student, teacher, labels)
  keep = mask[..., None]
  other = run(
    np.where(keep, student, junk),
    np.where(keep, teacher, junk),
    np.where(mask, labels, -100),
  )
  np.testing.assert_allclose(other[0], value, rtol=1e-6)
  np.testing.assert_allclose(other[1], grad, rtol=1e-6)


def test_impossible_prefixes_and_nan_tokens():
  # Of the tokens 0 and 1: p says only 0, q only 1, or one says both.
  none, one, either = [0, -np.inf], [-np.inf, 0], [0, 0]
  cases = [
    (either, none, 1, 0.0),  # the teacher cannot say it
    (none, either, 1, 1.0),  # the student cannot
    (none, none, 1, 0.5),  # neither can
    ([np.nan, 0], either, 0, 0.5),
    (either, none, 2, 0.5),  # no token at all
    (either, none, 0, 2 / 3),
    (one, either, 0, 1.0),
  ]
  student, teacher = (
    jnp.float32([[case[i]] * 3 for case in cases]) for i in (0, 1)
  )
  labels = np.array([[case[2]] * 3 for case in cases])
  mask = np.array([[True, False, True]] * len(cases))
  value = losses.step_mixture(student, teacher, labels, mask)
  np.testing.assert_allclose(value[:, 0], 0.5)
  for t in (1, 2):
    np.testing.assert_allclose(value[:, t], [case[3] for case in cases])

  @jax.jit
  @jax.grad
  def gradient(student):
    w = losses.step_mixture(student, teacher, labels, mask)
    forward = losses.skew_forward_kl(student, teacher, alpha=w)
    reverse = losses.skew_reverse_kl(student, teacher, alpha=1 - w)
    # A token is NaN where a logit is.
    kept = mask & ~jnp.isnan(student).any(-1)
    return masked_sum(forward, kept) + masked_sum(reverse, kept)

  assert np.isfinite(gradient(student)).all()


def test_many_impossible_tokens_do_not_overflow():
  # Twice only the student can say the token, then twice only the teacher.
  one, other = [0.0, -np.inf], [-np.inf, 0.0]
  student = jnp.array([[one, one, other, other, one]])
  teacher = jnp.array([[other, other, one, one, one]])
  labels = jnp.zeros((1, 5), int)
  w = losses.step_mixture(student, teacher, labels, labels == 0)
  np.testing.assert_allclose(w[0, :3], [0.5, 0, 0])
  assert ((w >= 0) & (w <= 1)).all()  # False for NaN.


def test_jit_eager_and_vmap_agree():
  student, teacher, _, _ = case()
  testing.assert_transforms_agree(
    losses.step_mixture, student, teacher, LABELS, jnp.array(MASK)
  )


@pytest.mark.parametrize('name', ['labels', 'mask'])
def test_bad_shapes_are_named(name):
  arguments = {'labels': jnp.zeros((2, 3), int), 'mask': jnp.ones((2, 3), bool)}
  arguments[name] = arguments[name][:1]
  logits = jnp.zeros((2, 3, V))
  with pytest.raises(ValueError, match=rf'{name} .*\(2, 3\).*got \(1, 3\)'):
    losses.step_mixture(logits, logits, **arguments)
