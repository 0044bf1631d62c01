"""Distances between a student's and a teacher's hidden states and attention.

Each returns one float32 value a token; no gradient reaches the teacher. A token
whose features hold a NaN or an infinity has the value NaN and the gradient 0,
by projections and discriminators too, so that a mask over values is enough.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

Params = Any


def init_projection(key: jax.Array, d_s: int, d_t: int) -> jax.Array:
  """Returns a random projection W [D_s, D_t] that keeps the features' size."""
  return jax.random.normal(key, (d_s, d_t)) * d_s**-0.5


def hidden_distance(
  student: jax.Array,
  teacher: jax.Array,
  projection: jax.Array | None = None,
  *,
  scale: float = 1.0,
  mean: bool = False,
  normalize: bool = False,
) -> jax.Array:
  """Squared Euclidean distance of hidden states.

  ||t - scale * s W||^2, a sum over D_t; over D_t with `mean`.

  With `normalize` both t and s W are layer-normed first (without parameters),
  token by token. Pre-distillation's `normalize_hidden` normalises over batch,
  sequence and width at once, so that padding and the rest of the batch change
  a token's value; here they don't.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.array([[1.0, 2.0], [0.0, 4.0]])
  >>> print(hidden_distance(student, teacher))
  5.0
  >>> print(hidden_distance(student, teacher, mean=True))
  2.5

  Args:
    student: s [..., D_s].
    teacher: t [..., D_t].
    projection: W [D_s, D_t]; None where the widths are equal.
    scale: multiplies s W.
    mean: whether to divide by D_t.
    normalize: whether to layer-norm.

  Returns:
    [...] float32.

  Raises:
    ValueError: if the shapes do not fit.

  References:
    Romero et al., 2015 (FitNets), https://arxiv.org/abs/1412.6550, equation 3
    (with W); Shleifer & Rush, 2020, https://arxiv.org/abs/2010.13002 (`mean`,
    between a teacher and copies of its layers).
  """
  student, teacher, broken = _pair(student, teacher, projection)
  if normalize:
    student, teacher = _layer_norm(student), _layer_norm(teacher)
  squares = jnp.square(teacher - scale * student)
  value = squares.mean(-1) if mean else squares.sum(-1)
  return jnp.where(broken, jnp.nan, value)


def cosine_distance(
  student: jax.Array,
  teacher: jax.Array,
  projection: jax.Array | None = None,
) -> jax.Array:
  """Cosine distance of hidden states, in [0, 2].

  1 - <s W, t> / (||s W|| ||t||); 1, without a gradient, where one is zero.

  >>> import jax.numpy as jnp
  >>> student, teacher = jnp.array([[1.0, 0.0], [2.0, 2.0]])
  >>> print(round(float(cosine_distance(student, teacher)), 4))
  0.2929

  Args:
    student: s [..., D_s].
    teacher: t [..., D_t].
    projection: W [D_s, D_t]; None where the widths are equal.

  Returns:
    [...] float32.

  Raises:
    ValueError: if the shapes do not fit.

  References:
    Sanh et al., 2019 (DistilBERT), https://arxiv.org/abs/1910.01108, section 3.
  """
  student, teacher, broken = _pair(student, teacher, projection)
  value = 1 - jnp.sum(_unit(student) * _unit(teacher), -1)
  return jnp.where(broken, jnp.nan, value)


def attention_distance(
  student: jax.Array, teacher: jax.Array, *, kind: str = 'mse'
) -> jax.Array:
  """Distance of attention weights, a mean over heads.

  'mse': mean_s (a_s - b_s)^2 over the positions s that either may see (its
  weight isn't 0), so that padding changes nothing. 'kl': KL(b || a) =
  sum_s b_s log(b_s / a_s), of rows normalised to 1. Here a is the student's and
  b the teacher's row. A row that sees nothing has the value 0.

  Where the numbers of heads differ, each model's are averaged first. Dropout
  on the student's weights makes zeros of some, where the KL is infinite: take
  'mse' with it.

  >>> import jax.numpy as jnp
  >>> student = jnp.array([[[[0.5, 0.5, 0.0]]]])
  >>> teacher = jnp.array([[[[0.25, 0.75, 0.0]]]])
  >>> print(attention_distance(student, teacher))
  [[0.0625]]
  >>> print(attention_distance(student, teacher, kind='kl').round(4))
  [[0.1308]]

  Args:
    student: [B, N_s, T, S], each row a distribution over S.
    teacher: [B, N_t, T, S].
    kind: 'mse' or 'kl'.

  Returns:
    [B, T] float32; +inf where the KL is, which adds no gradient.

  Raises:
    ValueError: for another kind, or shapes that differ in more than N.

  References:
    Jiao et al., 2020 (TinyBERT), https://arxiv.org/abs/1909.10351, equation 7
    (on scores before the softmax); Wang et al., 2020 (MiniLM),
    https://arxiv.org/abs/2002.10957 (the KL).
  """
  if kind not in _ROW_DISTANCES:
    raise ValueError(
      f'kind is {kind!r}; it must be one of {[*_ROW_DISTANCES]}.'
    )
  _check_attention(student, teacher)
  teacher = jax.lax.stop_gradient(teacher)
  broken = _broken(student, (-3, -1)) | _broken(teacher, (-3, -1))
  rows = broken[..., None, :, None]
  student, teacher = _fill(student, rows), _fill(teacher, rows)
  if student.shape[-3] != teacher.shape[-3]:
    student = student.mean(-3, keepdims=True)
    teacher = teacher.mean(-3, keepdims=True)
  value = _ROW_DISTANCES[kind](student, teacher).mean(-2)
  return jnp.where(broken, jnp.nan, value)


def combine_layers(
  student: jax.Array,
  teachers: jax.Array,
  projection: jax.Array | None = None,
) -> jax.Array:
  """ALP-KD's target: all teacher layers, weighed by their likeness.

  sum_j w_j t_j with w = softmax_j(<s W, t_j>), token by token: the `teacher` of
  `hidden_distance` for the layer s.

  Constant to the gradient, weights included, as all that a student learns from.

  >>> import jax.numpy as jnp
  >>> student = jnp.array([1.0, 0.0])
  >>> teachers = jnp.array([[jnp.log(3.0), 0.0], [0.0, 4.0]])
  >>> print(combine_layers(student, teachers).round(4))
  [0.824 1.   ]

  Args:
    student: s [..., D_s].
    teachers: t [L, ..., D_t].
    projection: W [D_s, D_t]; None where the widths are equal.

  Returns:
    [..., D_t] float32.

  Raises:
    ValueError: if the shapes do not fit.

  References:
    Passban et al., 2021 (ALP-KD), https://arxiv.org/abs/2012.14022.
  """
  _check_shapes(student, teachers[0], projection)
  teachers = teachers.astype(jnp.float32)
  student = _project(student.astype(jnp.float32), projection)
  student, teachers = jax.lax.stop_gradient((student, teachers))
  dot = functools.partial(jnp.einsum, precision='highest')
  weights = jax.nn.softmax(dot('...d,l...d->l...', student, teachers), axis=0)
  return dot('l...,l...d->...d', weights, teachers)


def init_discriminator(key: jax.Array, width_in: int, width: int) -> Params:
  """Returns parameters of `discriminator` for features [..., width_in]."""
  first, second = jax.random.split(key)

  def layer(key, d_in, d_out):
    kernel = init_projection(key, d_in, d_out)
    return {'kernel': kernel, 'bias': jnp.zeros(d_out)}

  return {
    'hidden': layer(first, width_in, width),
    'output': layer(second, width, 1),
  }


def discriminator(params: Params, features: jax.Array) -> jax.Array:
  """Scores features: near 1 for the teacher's, near 0 for the student's.

  D(x) = v . leaky_relu(U x + b) + c, with the slope 0.2 below zero.

  Args:
    params: of `init_discriminator`.
    features: [..., D].

  Returns:
    [...] float32, not squashed.

  Raises:
    ValueError: if D is not the width that the parameters were made for.
  """
  hidden, output = params['hidden'], params['output']
  if features.shape[-1] != hidden['kernel'].shape[0]:
    raise ValueError(
      f'features of width {features.shape[-1]} meet a discriminator for '
      f'{hidden["kernel"].shape[0]}: project them, or make one with '
      f'init_discriminator(key, {features.shape[-1]}, width).'
    )
  broken = _broken(features, -1)
  x = _fill(features, broken[..., None])
  x = _project(x, hidden['kernel']) + hidden['bias']
  x = jax.nn.leaky_relu(x, 0.2)
  x = _project(x, output['kernel']) + output['bias']
  return jnp.where(broken, jnp.nan, x[..., 0])


def discriminator_loss(
  teacher_scores: jax.Array, student_scores: jax.Array
) -> jax.Array:
  """Returns (1 - D(t))^2 + D(s)^2, least-squares GAN's, scores [...] -> [...].

  References:
    Chung et al., 2020, https://arxiv.org/abs/2002.01775.
  """
  return jnp.square(1 - teacher_scores) + jnp.square(student_scores)


def generator_loss(student_scores: jax.Array) -> jax.Array:
  """Returns (1 - D(s))^2: the student's part of `discriminator_loss`."""
  return jnp.square(1 - student_scores)


def adversarial(
  params: Params,
  student: jax.Array,
  teacher: jax.Array,
  projection: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Both sides' losses, to be minimised as one sum.

  (1 - D(t))^2 + D(s)^2, which only `params` get a gradient from, and
  (1 - D(s W))^2, which only the student and W do. One step on their sum is a
  step of each, from where both stood before it.

  >>> params = init_discriminator(jax.random.key(0), 2, 4)
  >>> student = jnp.zeros((3, 2))
  >>> print(*adversarial(params, student, teacher=student))
  [1. 1. 1.] [1. 1. 1.]

  Args:
    params: the discriminator's, for width D_t.
    student: s [..., D_s].
    teacher: t [..., D_t].
    projection: W [D_s, D_t]; None where the widths are equal.

  Returns:
    the discriminator's and the student's losses, each [...] float32.

  Raises:
    ValueError: if the shapes do not fit.

  References:
    Chung et al., 2020, https://arxiv.org/abs/2002.01775.
  """
  student, teacher, broken = _pair(student, teacher, projection)
  still_params, still = jax.lax.stop_gradient((params, student))
  judging = discriminator_loss(
    discriminator(params, teacher), discriminator(params, still)
  )
  fooling = generator_loss(discriminator(still_params, student))
  return tuple(jnp.where(broken, jnp.nan, x) for x in (judging, fooling))


def _pair(student, teacher, projection):
  """Returns s W and the constant t in float32, and which tokens are broken.

  Those read as zeros: NaN * 0 is NaN, also in a gradient of what is masked.
  """
  _check_shapes(student, teacher, projection)
  teacher = jax.lax.stop_gradient(teacher)
  broken = _broken(student, -1) | _broken(teacher, -1)
  tokens = broken[..., None]
  student, teacher = _fill(student, tokens), _fill(teacher, tokens)
  return _project(student, projection), teacher, broken


def _broken(x, axes):
  return ~jnp.isfinite(x).all(axes)


def _fill(x, where):
  return jnp.where(where, 0.0, x.astype(jnp.float32))


def _project(x, matrix):
  if matrix is None:
    return x
  # Accelerators would multiply float32 in fewer bits.
  return jnp.matmul(x, matrix.astype(jnp.float32), precision='highest')


def _layer_norm(x):
  x = x - x.mean(-1, keepdims=True)
  variance = jnp.square(x).mean(-1, keepdims=True)
  return x * jax.lax.rsqrt(variance + 1e-5)


def _unit(x):
  """Returns x / ||x||; zeros, without a gradient, for zeros."""
  peak = jax.lax.stop_gradient(jnp.abs(x).max(-1, keepdims=True))
  some = peak >= jnp.finfo(jnp.float32).tiny
  # Divided by its largest entry, no x is too large or too small to square.
  x = jnp.where(some, x / jnp.where(some, peak, 1.0), 0.0)
  norm = jnp.sqrt(jnp.where(some, jnp.square(x).sum(-1, keepdims=True), 1.0))
  return x / norm


def _mean_square(student, teacher):
  seen = (student != 0) | (teacher != 0)
  total = jnp.square(student - teacher).sum(-1)
  return total / jnp.maximum(seen.sum(-1), 1)


def _kl(student, teacher):
  student, teacher = (
    x / jnp.where((total := x.sum(-1, keepdims=True)) > 0, total, 1.0)
    for x in (student, teacher)
  )
  tiny = jnp.finfo(jnp.float32).tiny
  mass = teacher >= tiny
  finite = mass & (student >= tiny)
  teacher, student = (jnp.where(finite, x, 1.0) for x in (teacher, student))
  terms = teacher * (jnp.log(teacher) - jnp.log(student))
  return jnp.where(mass & ~finite, jnp.inf, terms).sum(-1)


_ROW_DISTANCES = {'mse': _mean_square, 'kl': _kl}


def _check_shapes(student, teacher, projection):
  if student.shape[:-1] != teacher.shape[:-1]:
    raise ValueError(
      f'student features of shape {student.shape} and teacher features of '
      f'shape {teacher.shape} must agree in all but the last axis.'
    )
  widths = d_s, d_t = student.shape[-1], teacher.shape[-1]
  found = None if projection is None else projection.shape
  if found != widths and (projection is not None or d_s != d_t):
    raise ValueError(
      f"the student's width is {d_s}, the teacher's {d_t}, the shape of the "
      f'projection {found}: set projection to an array of shape {widths}, such '
      f'as init_projection(key, {d_s}, {d_t}), and train it along.'
    )


def _check_attention(student, teacher):
  shapes = [(*x.shape[:-3], *x.shape[-2:]) for x in (student, teacher)]
  if min(student.ndim, teacher.ndim) < 3 or shapes[0] != shapes[1]:
    raise ValueError(
      f'student attention of shape {student.shape} and teacher attention of '
      f'shape {teacher.shape} must be [B, N, T, S] with equal B, T and S. S '
      'differs where the two read other prompts, or prompts padded to other '
      'widths: give them the same, or match hidden states.'
    )
