"""Teachers known by their likeliest tokens, against all of their logits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from tests.losses import twins

INF, V = np.inf, 5
# Compiled once each, for one number of rows.
ROWS, KS = 10, (1, 2, V)

# Functions of student and teacher, with their formulas in float64; the last are
# no f-divergences, and need not rise with k.
LOSSES = {
  'forward_kl': losses.forward_kl,
  'reverse_kl': losses.reverse_kl,
  'total_variation': losses.total_variation,
  'generalized_jsd': functools.partial(losses.generalized_jsd, beta=0.2),
  'normalized': functools.partial(
    losses.generalized_jsd, beta=0.2, normalized=True
  ),
  'skew_forward_kl': losses.skew_forward_kl,
  'skew_reverse_kl': losses.skew_reverse_kl,
  'hellinger': functools.partial(losses.f_divergence, f='squared_hellinger'),
  'soft_cross_entropy': losses.soft_cross_entropy,
  'adaptive_kl': losses.adaptive_kl,
}


def kl(p, q):
  return (p * (np.log(p) - np.log(q))).sum(-1)


def jsd(p, q, beta):
  m = beta * p + (1 - beta) * q
  return beta * kl(p, m) + (1 - beta) * kl(q, m)


def adaptive(p, q, mu=0.5):
  """Outcomes come in the order in which they count as likely."""
  head = np.cumsum(p, -1) - p < mu
  gaps = [np.where(part, np.abs(p - q), 0).sum(-1) for part in (head, ~head)]
  return (gaps[0] * kl(p, q) + gaps[1] * kl(q, p)) / sum(gaps)


FORMULAS = {
  'forward_kl': kl,
  'reverse_kl': lambda p, q: kl(q, p),
  'total_variation': lambda p, q: np.abs(p - q).sum(-1) / 2,
  'generalized_jsd': lambda p, q: jsd(p, q, 0.2),
  'normalized': lambda p, q: jsd(p, q, 0.2) / 0.16,
  'skew_forward_kl': lambda p, q: kl(p, 0.1 * p + 0.9 * q),
  'skew_reverse_kl': lambda p, q: kl(q, 0.9 * p + 0.1 * q),
  'hellinger': lambda p, q: ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1) / 2,
  'soft_cross_entropy': lambda p, q: -(p * np.log(q)).sum(-1),
  'adaptive_kl': adaptive,
}


def random_logits(seed, shape=(ROWS, V)):
  rng = np.random.default_rng(seed)
  return (2 * rng.normal(size=(2, *shape))).astype(np.float32)


def softmax(logits):
  found = np.exp(np.asarray(logits, np.longdouble))
  return found / found.sum(-1, keepdims=True)


def joined(student, teacher, k):
  """Probabilities of both: the teacher's k likeliest, then all others."""
  order = np.argsort(-teacher, axis=-1)
  p, q = (np.take_along_axis(softmax(x), order, -1) for x in (teacher, student))
  if k == V:
    return p, q
  parts = ((x[..., :k], x[..., k:].sum(-1, keepdims=True)) for x in (p, q))
  return tuple(np.concatenate(part, -1) for part in parts)


def each(student, teacher):
  return {name: loss(student, teacher) for name, loss in LOSSES.items()}


@jax.jit
def compiled(student, teacher):
  """Values, and gradients by the student, of all losses."""

  def total(student):
    found = each(student, teacher)
    return jax.tree.map(jnp.sum, found), found

  slopes, found = jax.jacrev(total, has_aux=True)(student)
  return found, slopes


def values(student, teacher):
  return compiled(jnp.asarray(student), teacher)[0]


def gradients(student, teacher):
  return compiled(jnp.asarray(student), teacher)[1]


def test_values_and_gradients_are_those_of_the_joined_outcomes():
  """By enumeration, and finite differences of the formulas."""
  student, teacher = random_logits(0)
  step = 1e-4
  for k in KS:
    found = losses.top_k(jnp.asarray(teacher), k)
    value, slope = values(student, found), gradients(student, found)
    for name, formula in FORMULAS.items():
      of = lambda logits, k=k, f=formula: f(*joined(logits, teacher, k))
      x = np.asarray(student, np.longdouble)
      np.testing.assert_allclose(
        value[name],
        of(x).astype(float),
        rtol=1e-5,
        atol=1e-8,
        err_msg=f'{name} {k}',
      )
      if name == 'adaptive_kl':  # its weights are constants to the gradient
        continue
      moves = step * np.eye(V, dtype=np.longdouble)
      change = [(of(x + h) - of(x - h)) / (2 * step) for h in moves]
      expected = np.stack(change, -1).astype(float)
      np.testing.assert_allclose(
        slope[name], expected, rtol=1e-4, atol=2e-6, err_msg=f'{name} {k}'
      )


def test_all_tokens_are_all_logits():
  student, teacher = random_logits(1)
  found = losses.top_k(jnp.asarray(teacher), V)
  assert np.all(np.asarray(found.tail) == -INF)
  for function in (values, gradients):
    whole, known = function(student, teacher), function(student, found)
    for name in LOSSES:
      # Some roundings of logarithms near 5.
      np.testing.assert_allclose(
        known[name], whole[name], rtol=1e-5, atol=2e-6, err_msg=name
      )


def test_values_rise_with_k_up_to_that_of_all_logits():
  for seed in range(10):
    student, teacher = random_logits(seed + 10)
    known = [losses.top_k(jnp.asarray(teacher), k) for k in KS]
    found = [values(student, each) for each in known]
    found.append(values(student, teacher))
    for name in LOSSES:
      if name != 'adaptive_kl':
        for low, high in itertools.pairwise(each[name] for each in found):
          assert np.all(low <= high * (1 + 1e-5) + 1e-6), name


def test_the_other_tokens_come_last_in_the_head_of_adaptive_kl():
  """However much mass they hold together; each of them is less likely."""
  teacher = jnp.log(jnp.array([0.3, 0.25, 0.15, 0.15, 0.15]))
  student = jnp.zeros(V)
  found = losses.top_k(teacher, 2)
  p, q = joined(np.asarray(student), np.asarray(teacher), 2)
  for mu in (0.2, 0.5, 0.6):
    value = losses.adaptive_kl(student, found, mu=mu)
    np.testing.assert_allclose(value, adaptive(p, q, mu), rtol=1e-5)


def test_jit_eager_vmap_and_broadcasting_agree():
  student, teacher = jnp.asarray(random_logits(2))
  known = losses.top_k(teacher, 2)
  jitted = values(student, known)
  mapped = jax.jit(jax.vmap(each))(student, known)
  for name in LOSSES:
    np.testing.assert_allclose(mapped[name], jitted[name], rtol=1e-5)
  eager = losses.generalized_jsd(student, known, beta=0.2)
  np.testing.assert_allclose(eager, jitted['generalized_jsd'], rtol=1e-5)
  row = jax.tree.map(lambda x: x[0], known)
  many = losses.forward_kl(student, row)
  np.testing.assert_allclose(many[0], jitted['forward_kl'][0], rtol=1e-5)
  one = losses.forward_kl(student[0], known)
  np.testing.assert_allclose(one[0], jitted['forward_kl'][0], rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
  student, teacher = jnp.bfloat16(random_logits(3))
  known = losses.top_k(teacher, 2)
  assert known.logprobs.dtype == known.tail.dtype == jnp.float32
  value, slope = values(student, known), gradients(student, known)
  exact = values(student.astype(jnp.float32), known)
  for name in LOSSES:
    assert value[name].dtype == jnp.float32
    assert slope[name].dtype == jnp.bfloat16
    np.testing.assert_allclose(value[name], exact[name], rtol=1e-6)


# Student's and teacher's logits, forward and reverse KL of the top 2.
EDGES = {
  'only these': ([0, 0, -INF, -INF, -INF], [0, 0, -INF, -INF, -INF], 0, 0),
  'student has none of them': (
    [-INF, -INF, 0, 0, 0],
    [1, 1, 0, 0, 0],
    INF,
    None,
  ),
  'student has no others': (
    [0, 0, -INF, -INF, -INF],
    [1, 1, 0, 0, 0],
    INF,
    None,
  ),
  'teacher has no others': (
    [0, 0, 0, 0, 0],
    [0, 0, -INF, -INF, -INF],
    None,
    INF,
  ),
  'one of many': ([0, -INF, 0, -INF, 0], [3, 0, -INF, -INF, -INF], INF, INF),
  'large': ([3e38, -3e38, 0, 1, 2], [-3e38, 3e38, 0, 1, 2], None, None),
  'no student': ([-INF] * V, [0, 1, 2, 3, 4], INF, None),
  'NaN among the others': (
    [0, 0, np.nan, 0, 0],
    [3, 2, 1, 0, 0],
    np.nan,
    np.nan,
  ),
  'NaN among these': ([np.nan, 0, 0, 0, 0], [3, 2, 1, 0, 0], np.nan, np.nan),
  'NaN of the teacher': ([0, 0, 0, 0, 0], [3, 2, 1, np.nan, 0], np.nan, np.nan),
}


def test_edges_have_the_right_infinities_and_finite_gradients():
  student, teacher = (
    np.array([row[i] for row in EDGES.values()], np.float32) for i in (0, 1)
  )
  for k in KS:
    known = losses.top_k(jnp.asarray(teacher), k)
    for name, slope in gradients(student, known).items():
      assert np.all(np.isfinite(slope)), (name, k)
  found = values(student, losses.top_k(jnp.asarray(teacher), 2))
  for i, (name, row) in enumerate(EDGES.items()):
    for loss, expected in zip(('forward_kl', 'reverse_kl'), row[2:]):
      if expected is not None:
        np.testing.assert_allclose(found[loss][i], expected, err_msg=name)
    for value in found.values():
      assert ('NaN' in name) == bool(np.isnan(value[i])), name


def test_masked_tokens_never_matter():
  """Where a cache holds nothing: zeros, ids that repeat."""
  student, teacher = jnp.asarray(random_logits(4))
  known = losses.top_k(teacher, 3)
  student = student.at[1].set(np.nan)
  known = jax.tree.map(lambda x: x.at[1:3].set(0), known)
  mask = jnp.ones(ROWS, bool).at[1:3].set(False)
  names = 'forward_kl', 'skew_reverse_kl', 'soft_cross_entropy', 'adaptive_kl'

  @jax.jit
  @jax.jacrev
  def slopes(student):
    return {
      name: losses.masked_sum(LOSSES[name](student, known), mask)
      for name in names
    }

  for name, slope in slopes(student).items():
    assert np.all(np.isfinite(slope)), name
    assert not np.any(slope[1:3]) and np.all(np.any(slope[3:], -1)), name


def test_an_id_outside_the_vocabulary_is_nan_without_a_gradient():
  student, teacher = jnp.asarray(random_logits(5))
  known = losses.top_k(teacher, 2)
  for strange in (-1, V):
    ids = known.ids.at[0, 1].set(strange)
    given = types.TopK(ids, known.logprobs, known.tail)
    value = losses.forward_kl(student, given)
    assert np.isnan(value[0]) and np.all(np.isfinite(value[1:]))
    slope = gradients(student, given)['forward_kl']
    assert not np.any(slope[0]) and np.all(np.any(slope[1:], -1))


def test_a_temperature_needs_all_tokens():
  student, teacher = jnp.asarray(random_logits(6))
  some, every = (losses.top_k(teacher, k) for k in (2, V))
  np.testing.assert_allclose(
    losses.forward_kl(student, every, temperature=2.0),
    losses.forward_kl(student, teacher, temperature=2.0),
    rtol=1e-4,
  )
  expected = losses.forward_kl(student, some)
  for one in (1, np.float32(1), jnp.float32(1), np.ones(()), jnp.ones(ROWS)):
    found = losses.forward_kl(student, some, temperature=one)
    np.testing.assert_array_equal(found, expected)
  for temperature in (2.0, np.float32(2.0), jnp.full(ROWS, 1.0).at[0].set(2)):
    with pytest.raises(ValueError, match='only at temperature 1'):
      losses.forward_kl(student, some, temperature=temperature)
  with pytest.raises(ValueError, match='only at temperature 1'):
    jax.jit(lambda t: losses.forward_kl(student, some, temperature=t))(1.0)


def test_no_gradient_reaches_the_teacher():
  student, teacher = jnp.asarray(random_logits(7))
  known = losses.top_k(teacher, 2)

  def total(logprobs, tail):
    given = types.TopK(known.ids, logprobs, tail)
    return losses.reverse_kl(student, given).sum()

  for slope in jax.grad(total, (0, 1))(known.logprobs, known.tail):
    assert not np.any(slope)


REFUSED = {
  'engine': lambda s, t: losses.engine(s, t),
  'dpkd_token': lambda s, t: losses.dpkd_token(s, t),
  'label_log_ratio': lambda s, t: losses.label_log_ratio(
    s, t, jnp.zeros(ROWS, int)
  ),
  'induced_reward': lambda s, t: losses.induced_reward(t, None, None),
  'action_values': lambda s, t: losses.action_values(t, None),
  'teacher_baseline': lambda s, t: losses.teacher_baseline(t),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_reads_every_logit_says_so(name):
  student, teacher = jnp.asarray(random_logits(8))
  with pytest.raises(TypeError, match=f"{name} reads the teacher's logit"):
    REFUSED[name](student, losses.top_k(teacher, 2))


def test_shapes_that_do_not_fit_are_named():
  student, teacher = jnp.asarray(random_logits(9))
  known = losses.top_k(teacher, 3)
  with pytest.raises(ValueError, match=r'got shapes \(10, 3\), .* \(10, 1\)'):
    losses.forward_kl(
      student, types.TopK(known.ids, known.logprobs, known.tail[:, None])
    )
  with pytest.raises(ValueError, match='k=3 does not fit'):
    losses.forward_kl(student[:, :2], known)


@pytest.mark.parametrize('k', [2, twins.V])
def test_chunked_is_the_whole(k):
  inputs, _ = twins.known_problem(k)
  known = inputs.pop('teacher_hidden')
  del inputs['labels'], inputs['args']
  names = 'student_hidden', 'student_head'
  models = {name: inputs.pop(name) for name in names}

  def loss(student, teacher):
    return {k: losses.DIVERGENCES[k](student, teacher) for k in names}

  names = 'forward_kl', 'generalized_jsd', 'adaptive_kl'
  weights = dict.fromkeys(names, inputs.pop('weights'))

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def chunked(models):
    return losses.chunked(
      loss,
      **models,
      teacher_hidden=known,
      weights=weights,
      chunk_size=4,
      **inputs,
    )

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def whole(models):
    logits = models['student_head'].logits(models['student_hidden'])
    found, mask = loss(logits, known), inputs['mask']
    kept = jax.tree.map(lambda x: jnp.where(mask, x, 0.0), found)
    return sum((weights[k] * kept[k]).sum() for k in names), kept

  twins.assert_close(chunked(models), whole(models))
  each = losses.chunked_values(
    loss, **models, teacher_hidden=known, mask=inputs['mask'], chunk_size=4
  )
  twins.assert_close(each, whole(models)[0][1])


def test_chunked_says_what_does_not_fit():
  inputs, (_, head) = twins.known_problem(2)
  chunked = functools.partial(losses.chunked, losses.forward_kl)
  with pytest.raises(ValueError, match='leave teacher_head out'):
    chunked(**inputs, teacher_head=head)
  first = jax.tree.map(lambda x: x[:, 0], inputs.pop('teacher_hidden'))
  with pytest.raises(ValueError, match=r'\(3, 7\) and \(3,\) of tokens'):
    chunked(**inputs, teacher_hidden=first)
