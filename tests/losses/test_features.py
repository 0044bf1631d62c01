"""Feature distances: identities, gradients, and what may not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing
from kdjax.losses import features

B, T, S, D, W, L = 2, 3, 5, 4, 6, 3


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def weights(seed, heads, width=S):
  return jax.nn.softmax(2 * normal(seed, B, heads, T, width))


def close(a, b, atol=1e-5):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


PROJECTION = normal(9, D, W)
HIDDEN = {
  'sum': features.hidden_distance,
  'mean': functools.partial(features.hidden_distance, mean=True, scale=0.5),
  'normalized': functools.partial(features.hidden_distance, normalize=True),
  'cosine': features.cosine_distance,
}
each_hidden = pytest.mark.parametrize('loss', HIDDEN.values(), ids=HIDDEN)
each_kind = pytest.mark.parametrize('kind', ['mse', 'kl'])


def formula(name, student, teacher):
  s, t = (np.asarray(x, np.float64) for x in (student, teacher))
  if name == 'cosine':
    norms = np.linalg.norm(s, axis=-1) * np.linalg.norm(t, axis=-1)
    return 1 - (s * t).sum(-1) / norms
  if name == 'normalized':
    s, t = (
      (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
      for x in (s, t)
    )
  if name == 'mean':
    return ((t - 0.5 * s) ** 2).mean(-1)
  return ((t - s) ** 2).sum(-1)


@pytest.mark.parametrize('name', HIDDEN)
def test_hidden_distances_are_their_formulas(name):
  student, teacher = normal(0, B, T, D), normal(1, B, T, W)
  loss = functools.partial(HIDDEN[name], projection=PROJECTION)
  value = loss(student, teacher)
  assert value.dtype == jnp.float32
  close(value, formula(name, student @ PROJECTION, teacher))
  same = HIDDEN[name](student, normal(2, B, T, D))
  close(same, formula(name, student, normal(2, B, T, D)))
  half = loss(student.astype(jnp.bfloat16), teacher.astype(jnp.bfloat16))
  assert half.dtype == jnp.float32
  close(half, value, atol=0.15 * float(value.max()))
  testing.assert_transforms_agree(loss, student, teacher)


@each_hidden
def test_hidden_gradients(loss):
  student, teacher = normal(0, B, T, D), normal(1, B, T, W)

  def total(point):
    return loss(point['s'], teacher, point['w']).mean()

  point = {'s': student, 'w': PROJECTION}
  testing.assert_gradient(total, point, key=jax.random.key(3))
  by_teacher = jax.grad(lambda t: loss(student, t, PROJECTION).sum())(teacher)
  assert not by_teacher.any()


def test_normalized_distance_ignores_scale_and_shift():
  student, teacher = normal(0, B, T, D), normal(1, B, T, D)
  loss = functools.partial(features.hidden_distance, normalize=True)
  # To 1e-3: the 1e-5 in the variance isn't scaled along.
  close(loss(3 * student + 7, teacher - 5), loss(student, teacher), atol=1e-3)
  other = loss(student.at[0, 0].set(40.0), teacher)
  close(other[1], loss(student, teacher)[1], atol=0)
  assert loss(student, student).max() == 0


def test_cosine_at_its_ends_and_far_out():
  x = normal(0, B, T, D)
  for scale in (1e-30, 1.0, 1e30):
    close(features.cosine_distance(x, scale * x), 0, atol=1e-6)
    close(features.cosine_distance(scale * x, -x), 2, atol=1e-6)
  zero = jnp.zeros_like(x)
  value, slope = jax.value_and_grad(
    lambda s: features.cosine_distance(s, x).sum()
  )(zero)
  assert value == B * T and not slope.any()
  # It is of degree 0, so its gradient is orthogonal to the features.
  slope = jax.grad(lambda s: features.cosine_distance(s, x[::-1]).sum())(x)
  assert jnp.abs(slope).max() > 0.01
  close((slope * x).sum(-1), 0, atol=1e-6)


def judged(x, teacher, projection):
  params = features.init_discriminator(jax.random.key(0), W, 5)
  first, second = features.adversarial(params, x, teacher, projection)
  return first + second


@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize('junk', [np.nan, np.inf])
@pytest.mark.parametrize('loss', [*HIDDEN.values(), judged])
def test_masked_tokens_never_matter(loss, junk, side):
  mask = jnp.ones((B, T)).at[1, 2].set(0)
  point = {
    'student': normal(0, B, T, D),
    'teacher': normal(1, B, T, W),
    'projection': PROJECTION,
  }

  def total(point):
    values = loss(point['student'], point['teacher'], point['projection'])
    return losses.masked_mean(values, mask)

  clean = jax.value_and_grad(total)(point)
  dirty = jax.value_and_grad(total)(
    {**point, side: point[side].at[1, 2, 0].set(junk)}
  )
  jax.tree.map(functools.partial(close, atol=1e-7), clean, dirty)
  dirty = {**point, side: point[side].at[1, 2, 0].set(junk)}
  assert jnp.isnan(loss(*dirty.values())[1, 2])


def test_widths_that_differ_need_a_projection():
  student, teacher = normal(0, B, T, D), normal(1, B, T, W)
  for loss in (features.hidden_distance, features.cosine_distance):
    with pytest.raises(ValueError, match=r'4.*6.*init_projection\(key, 4, 6\)'):
      loss(student, teacher)
    with pytest.raises(ValueError, match=r'\(6, 4\): set projection.*\(4, 6\)'):
      loss(student, teacher, PROJECTION.T)
    with pytest.raises(ValueError, match='all but the last'):
      loss(student[:1], teacher, PROJECTION)
  with pytest.raises(ValueError, match='init_projection'):
    features.combine_layers(student, teacher[None])
  params = features.init_discriminator(jax.random.key(0), D, 5)
  with pytest.raises(ValueError, match='width 6.*for 4'):
    features.discriminator(params, teacher)


def test_a_projection_keeps_the_size_of_features():
  projection = features.init_projection(jax.random.key(0), 100, 300)
  assert projection.shape == (100, 300)
  # 60,000 products: the mean square is good to 1%, and 5 times that is asked.
  out = normal(1, 200, 100) @ projection
  close(jnp.square(out).mean(), 1.0, atol=0.05)


@each_kind
def test_attention_distance_is_the_mean_over_heads(kind):
  student, teacher = weights(0, 4), weights(1, 4)
  a, b = (np.asarray(x, np.float64) for x in (student, teacher))
  each = {'mse': ((a - b) ** 2).mean(-1), 'kl': (b * np.log(b / a)).sum(-1)}
  loss = functools.partial(features.attention_distance, kind=kind)
  close(loss(student, teacher), each[kind].mean(1))
  close(loss(student, student), 0, atol=1e-6)
  # Averages of heads where their numbers differ, whatever their order.
  assert (loss(student, teacher[:, :2]) > 0).all()
  close(
    loss(student[:, ::-1], teacher[:, :2]),
    loss(student.mean(1, keepdims=True), teacher[:, :2].mean(1, keepdims=True)),
  )
  testing.assert_transforms_agree(loss, student, teacher)


@each_kind
def test_attention_gradients(kind):
  teacher = weights(1, 2)

  def total(scores, teacher=teacher):
    student = jax.nn.softmax(scores)
    return features.attention_distance(student, teacher, kind=kind).sum()

  scores = normal(0, B, 4, T, S)
  testing.assert_gradient(total, scores, key=jax.random.key(2))
  assert not jax.grad(total, 1)(scores, teacher).any()


@each_kind
def test_attention_to_padding_and_from_it_never_matters(kind):
  loss = functools.partial(features.attention_distance, kind=kind)
  student, teacher = weights(0, 2), weights(1, 2)
  pad = [(0, 0)] * 3 + [(2, 1)]
  padded = [jnp.pad(x, pad) for x in (student, teacher)]
  close(loss(*padded), loss(student, teacher), atol=1e-6)
  # A token that sees nothing, and masked ones that hold anything.
  student, teacher = (x.at[0, :, 0].set(0.0) for x in (student, teacher))
  value, slope = jax.value_and_grad(lambda s: loss(s, teacher)[0, 0])(student)
  assert value == 0 and not slope.any()
  mask = jnp.ones((B, T)).at[1, 1].set(0)

  def total(s):
    return losses.masked_mean(loss(s, teacher), mask)

  dirty = student.at[1, 0, 1, 2].set(jnp.nan)
  clean, dirty = (jax.value_and_grad(total)(x) for x in (student, dirty))
  jax.tree.map(close, clean, dirty)


def test_attention_kl_is_infinite_where_the_student_cannot_see():
  teacher = jnp.array([[[[0.5, 0.5]]]])
  loss = functools.partial(features.attention_distance, kind='kl')
  value, slope = jax.value_and_grad(lambda s: loss(s, teacher).sum())(
    jnp.array([[[[1.0, 0.0]]]])
  )
  assert value == np.inf and jnp.isfinite(slope).all()
  assert loss(teacher, jnp.array([[[[1.0, 0.0]]]])).item() == pytest.approx(
    np.log(2)
  )


def test_attention_of_other_shapes_or_kinds_is_refused():
  with pytest.raises(ValueError, match='other widths'):
    features.attention_distance(weights(0, 2), weights(1, 2, S + 1))
  with pytest.raises(ValueError, match="'cosine'.*'mse', 'kl'"):
    features.attention_distance(weights(0, 2), weights(1, 2), kind='cosine')


def test_combined_layers_lean_to_what_is_like_the_student():
  student, teachers = normal(0, B, T, D), normal(1, L, B, T, W)
  s = np.asarray(student @ PROJECTION, np.float64)
  t = np.asarray(teachers, np.float64)
  share = np.exp((s * t).sum(-1))
  share /= share.sum(0)
  found = features.combine_layers(student, teachers, PROJECTION)
  close(found, (share[..., None] * t).sum(0))
  # A student near no layer hears all alike; one far out hears the nearest.
  close(features.combine_layers(0 * found, teachers), teachers.mean(0))
  nearest = features.combine_layers(1e4 * teachers[1], teachers)
  alike = jnp.einsum('btd,lbtd->btl', teachers[1], teachers).argmax(-1)
  chosen = jnp.take_along_axis(teachers, alike[None, ..., None], 0)[0]
  close(nearest, chosen)
  combine = lambda s, *t: features.combine_layers(s, jnp.stack(t), PROJECTION)
  testing.assert_transforms_agree(combine, student, *teachers)
  slopes = jax.grad(
    lambda *args: features.combine_layers(*args).sum(), (0, 1, 2)
  )(student, teachers, PROJECTION)
  assert not any(slope.any() for slope in slopes)


def test_one_gradient_of_the_sum_moves_both_players():
  params = features.init_discriminator(jax.random.key(0), W, 5)
  student, teacher = normal(0, B, T, D), normal(1, B, T, W)

  def by_hand(params, student, projection, teacher):
    score = functools.partial(features.discriminator, params)
    projected = student @ projection
    judging = features.discriminator_loss(score(teacher), score(projected))
    return judging.sum(), features.generator_loss(score(projected)).sum()

  args = params, student, PROJECTION, teacher
  judging, fooling = features.adversarial(params, student, teacher, PROJECTION)
  close(judging.sum(), by_hand(*args)[0])
  close(fooling.sum(), by_hand(*args)[1])

  def together(params, student, projection, teacher):
    terms = features.adversarial(params, student, teacher, projection)
    return sum(term.sum() for term in terms)

  found = jax.grad(together, (0, 1, 2, 3))(*args)
  first = jax.grad(lambda *a: by_hand(*a)[0])(*args)
  second = jax.grad(lambda *a: by_hand(*a)[1], (1, 2))(*args)
  jax.tree.map(close, found[:3], (first, *second))
  assert not found[3].any()
  assert all(jnp.abs(x).max() > 1e-3 for x in jax.tree.leaves(found[:3]))


def test_the_players_want_opposite_things():
  ones, zeros = jnp.ones(3), jnp.zeros(3)
  assert not features.discriminator_loss(ones, zeros).any()
  assert not features.generator_loss(ones).any()
  assert (features.discriminator_loss(zeros, ones) == 2).all()
  assert (features.generator_loss(zeros) == 1).all()


def test_a_discriminator_learns_to_tell_two_crowds_apart():
  params = features.init_discriminator(jax.random.key(0), D, 16)
  student, teacher = normal(0, 64, D), normal(1, 64, D) + 2

  def loss(params):
    return features.adversarial(params, student, teacher)[0].mean()

  @jax.jit
  def step(params, _):
    slope = jax.grad(loss)(params)
    return jax.tree.map(lambda x, g: x - 0.01 * g, params, slope), None

  trained, _ = jax.lax.scan(step, params, length=400)
  # A constant score of 1/2 has the loss 1/2.
  assert loss(trained) < 0.1
