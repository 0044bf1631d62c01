"""Preference losses: their formulas, gradients by hand, edges and pitfalls."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing

INF = np.inf
B = 6
# Of responses of about ten tokens: q(y_c), q(y_r), p(y_c), p(y_r).
LOGPROBS = (
  np.random.default_rng(0).normal(-20, 4, size=(4, B)).astype(np.float32)
)
LENGTHS = np.float32([[3, 9, 1, 12, 7, 2], [5, 2, 8, 11, 1, 4]])
ROWS = np.concatenate([LOGPROBS, LENGTHS])
NAMES = (
  *('chosen', 'rejected', 'reference_chosen', 'reference_rejected'),
  *('chosen_lengths', 'rejected_lengths'),
)


def call(loss, means=False, **options):
  """The loss of ROWS; `means` gives it the lengths."""
  wanted = NAMES[:4] if 'reference_chosen' in signature(loss) else NAMES[:2]
  wanted += NAMES[4:] if means else ()

  def function(*rows):
    rows = dict(zip(NAMES, rows))
    return loss(**{name: rows[name] for name in wanted}, **options)

  return function


def signature(loss):
  return inspect.signature(loss).parameters


def cost(h):
  """-log sigmoid(h)."""
  return np.logaddexp(0, -h)


def margin(rows):
  """log q(y_c) - log q(y_r)."""
  return rows[0] - rows[1]


def ratio(rows):
  """log q(y_c)/p(y_c) - log q(y_r)/p(y_r)."""
  return (rows[0] - rows[2]) - (rows[1] - rows[3])


def mean_ratio(rows):
  return (rows[0] - rows[2]) / rows[4] - (rows[1] - rows[3]) / rows[5]


def mean_margin(rows):
  return rows[0] / rows[4] - rows[1] / rows[5]


# name: the loss of six rows, and its formula.
CASES = {
  'dpo': (call(losses.dpo), lambda x: cost(0.1 * ratio(x))),
  'smooth dpo': (
    call(losses.dpo, beta=0.5, label_smoothing=0.2),
    lambda x: 0.8 * cost(0.5 * ratio(x)) + 0.2 * cost(-0.5 * ratio(x)),
  ),
  'ipo': (call(losses.ipo), lambda x: (ratio(x) - 5) ** 2),
  'mean ipo': (
    call(losses.ipo, tau=0.2, means=True),
    lambda x: (mean_ratio(x) - 2.5) ** 2,
  ),
  'cpo': (call(losses.cpo), lambda x: cost(0.1 * margin(x))),
  'simpo': (
    call(losses.simpo, beta=2.5, gamma=0.7, means=True),
    lambda x: cost(2.5 * mean_margin(x) - 0.7),
  ),
  'dpkd': (call(losses.dpkd), lambda x: cost(0.1 * ratio(x))),
  'mean dpkd': (
    call(losses.dpkd, beta=0.3, means=True),
    lambda x: cost(0.3 * mean_ratio(x)),
  ),
  'logistic': (call(losses.ranking), lambda x: cost(margin(x))),
  'linear': (call(losses.ranking, form='linear'), lambda x: -margin(x)),
  'mean hinge': (
    call(losses.ranking, form='hinge', margin=2.0, means=True),
    lambda x: np.maximum(0, 2 - mean_margin(x)),
  ),
}
each = pytest.mark.parametrize(
  ('loss', 'formula'), CASES.values(), ids=CASES.keys()
)


def gradient(loss, rows=ROWS):
  """By the four log-probabilities, [4, ...]."""
  rows = jnp.asarray(rows)
  summed = lambda logprobs: loss(*logprobs, *rows[4:]).sum()
  return np.array(jax.jit(jax.grad(summed))(rows[:4]))


@each
def test_values_and_gradients_are_the_formulas(loss, formula):
  value = loss(*ROWS)
  assert value.shape == (B,) and value.dtype == jnp.float32
  exact = ROWS.astype(np.float64)
  np.testing.assert_allclose(value, formula(exact), rtol=2e-5)
  grads = gradient(loss)
  for i in (0, 1):
    step = np.zeros((6, 1))
    step[i] = 1e-4
    slope = (formula(exact + step) - formula(exact - step)) / 2e-4
    assert (slope != 0).any()
    np.testing.assert_allclose(grads[i], slope, rtol=1e-3, atol=1e-5)
  np.testing.assert_array_equal(grads[2:], 0)  # the reference's


@each
def test_jit_eager_and_vmap_agree(loss, formula):
  del formula
  testing.assert_transforms_agree(loss, *ROWS)


@each
def test_bfloat16_is_computed_in_float32(loss, formula):
  del formula
  rows = jnp.bfloat16(ROWS)
  value = loss(*rows)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, loss(*jnp.float32(rows)), rtol=1e-6)


@pytest.mark.parametrize('name', ['dpo', 'smooth dpo', 'dpkd', 'mean dpkd'])
def test_log_2_where_the_models_agree(name):
  loss, _ = CASES[name]
  same = np.concatenate([LOGPROBS[:2], LOGPROBS[:2], LENGTHS])
  np.testing.assert_allclose(loss(*same), np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
  'name', ['dpo', 'dpkd', 'mean dpkd', 'cpo', 'logistic']
)
def test_swapping_the_pair_flips_the_sign_of_the_gradient(name):
  """What pushed q(y) up pushes it down, by as much where no one leads."""
  loss, _ = CASES[name]
  swapped = ROWS[[1, 0, 3, 2, 5, 4]]
  grads, other = gradient(loss), gradient(loss, swapped)[[1, 0]]
  assert (np.sign(grads[:2]) == -np.sign(other)).all() and (other != 0).all()
  even = np.full((6, 1), -9, np.float32)
  even[4:] = 3
  same = gradient(loss, even)
  np.testing.assert_allclose(same[0], -same[1], rtol=1e-6)


@pytest.mark.parametrize('name', ['dpo', 'ipo', 'cpo', 'dpkd', 'logistic'])
def test_only_the_margin_matters(name):
  """A constant of the prompt, such as the partition function, cancels."""
  loss, _ = CASES[name]
  moved = ROWS + np.float32([[8], [8], [-4], [-4], [0], [0]])
  np.testing.assert_allclose(loss(*moved), loss(*ROWS), rtol=1e-4)


def test_dpkd_gradient_is_equation_11_with_the_sign_of_equation_8():
  beta = 0.3
  for loss, lengths in (
    (call(losses.dpkd, beta=beta), np.ones((2, B))),
    (call(losses.dpkd, beta=beta, means=True), LENGTHS),
  ):
    teacher, student = beta * (LOGPROBS[:2] - LOGPROBS[2:]) / lengths
    pull = beta / (1 + np.exp(teacher - student))  # beta sigmoid(student - t.)
    grads = gradient(loss)
    np.testing.assert_allclose(grads[0], -pull / lengths[0], rtol=1e-4)
    np.testing.assert_allclose(grads[1], pull / lengths[1], rtol=1e-4)


def test_the_losses_are_each_others_special_cases():
  same = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6)
  same(losses.dpkd(*LOGPROBS, beta=0.4), losses.dpo(*LOGPROBS, beta=0.4))
  uniform = np.full((2, B), -30, np.float32)
  same(losses.cpo(*LOGPROBS[:2]), losses.dpo(*LOGPROBS[:2], *uniform))
  same(
    losses.simpo(*LOGPROBS[:2], *LENGTHS, beta=1.0, gamma=0.0),
    CASES['logistic'][0](*(LOGPROBS[:2] / LENGTHS)),
  )
  rewards = [losses.implicit_reward(*LOGPROBS[i::2], beta=0.4) for i in (0, 1)]
  same(losses.dpo(*LOGPROBS, beta=0.4), losses.ranking(*rewards))
  rewards = [
    losses.implicit_reward(*LOGPROBS[i::2], beta=0.4, lengths=LENGTHS[i])
    for i in (0, 1)
  ]
  same(call(losses.dpkd, beta=0.4, means=True)(*ROWS), losses.ranking(*rewards))


def test_ipo_has_a_finite_target_where_dpo_has_none():
  margins = jnp.arange(-20.0, 20.0, 0.5)
  zeros = jnp.zeros_like(margins)
  ipo, dpo = (
    loss(margins, zeros, zeros, zeros, **{knob: 0.1})
    for loss, knob in ((losses.ipo, 'tau'), (losses.dpo, 'beta'))
  )
  assert margins[ipo.argmin()] == 5 and ipo.min() == 0
  assert margins[dpo.argmin()] == margins[-1]


def test_the_linear_form_is_unbounded_below_and_the_others_are_not():
  chosen, rejected = jnp.float32([-1.0]), jnp.float32([-1e6])
  assert losses.ranking(chosen, rejected, form='linear') < -9e5
  for form in ('hinge', 'logistic'):
    assert losses.ranking(chosen, rejected, form=form) == 0


def test_empty_responses_are_finite():
  rows = ROWS.copy()
  rows[4:] = 0
  rows[:4] = 0
  for loss, _ in CASES.values():
    assert np.isfinite(loss(*rows)).all()
    assert np.isfinite(gradient(loss, rows)).all()


@each
def test_impossible_responses_have_no_nan(loss, formula):
  del formula
  # Every combination of possible and impossible.
  possible = testing.responses(2, 4).T.astype(bool)
  rows = np.where(possible, np.float32(-9), -INF)
  rows = np.concatenate([rows, np.full((2, 16), 3, np.float32)])
  assert not np.isnan(loss(*rows)).any()
  assert np.isfinite(gradient(loss, rows)).all()


def test_impossible_responses_cost_their_limit():
  far = np.array([[-INF, -9, -9, -9]], np.float32)  # q(y_c) = 0
  for name, value in (
    ('dpo', INF),
    ('ipo', INF),
    ('cpo', INF),
    ('linear', INF),
  ):
    assert CASES[name][0](*far.T, *LENGTHS[:, :1]) == value
    rejected = far[:, [1, 0, 2, 3]]  # q(y_r) = 0
    value = {'ipo': INF, 'linear': -INF}.get(name, 0)
    assert CASES[name][0](*rejected.T, *LENGTHS[:, :1]) == value
  neither = np.float32([[-INF], [-9], [-INF], [-9]])  # as if they agreed
  np.testing.assert_allclose(losses.dpo(*neither), np.log(2), rtol=1e-6)


@each
def test_a_nan_pair_has_no_gradient(loss, formula):
  del formula
  rows = ROWS.copy()
  rows[0, 2] = np.nan
  assert not np.any(np.array(gradient(loss, rows))[:, 2])


@each
def test_a_nan_pair_leaves_the_others_alone(loss, formula):
  del formula
  rows = ROWS.copy()
  rows[0, 2] = rows[1, 4] = np.nan
  np.testing.assert_array_equal(np.isnan(loss(*rows)), [0, 0, 1, 0, 1, 0])
  mask = ~np.isnan(rows).any(0)
  grads = gradient(lambda *rows: losses.masked_sum(loss(*rows), mask), rows)
  expected = np.where(mask, gradient(loss), 0)
  np.testing.assert_allclose(grads, expected, rtol=1e-6)


def test_traced_settings():
  value = jax.jit(
    lambda beta, smoothing: losses.dpo(
      *LOGPROBS, beta=beta, label_smoothing=smoothing
    )
  )
  for beta, smoothing in ((0.1, 0.0), (0.5, 0.2)):
    expected = losses.dpo(*LOGPROBS, beta=beta, label_smoothing=smoothing)
    np.testing.assert_allclose(value(beta, smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('loss', 'options', 'message'),
  [
    ('dpo', {'beta': -0.1}, r'beta must be positive, got -0.1'),
    ('dpo', {'label_smoothing': 0.5}, r'in \[0, 0.5\), got 0.5'),
    ('ipo', {'tau': 0}, 'tau must be positive, got 0'),
    ('cpo', {'beta': -1}, 'beta must be positive'),
    ('simpo', {'beta': -1}, 'beta must be positive'),
    ('dpkd', {'beta': -1}, 'beta must be positive'),
    ('dpkd', {'chosen_lengths': LENGTHS[0]}, 'both chosen_lengths and'),
    ('dpkd', {'rejected': LOGPROBS[1, :1]}, r'one shape, got \(6,\) and \(1,'),
    ('dpo', {'reference_chosen': 0.0}, r'\(6,\) of the student.*got \(\)'),
    ('ranking', {'form': 'sigmoid'}, "'hinge' or 'linear', got 'sigmoid'"),
  ],
)
def test_bad_arguments_are_named(loss, options, message):
  loss = getattr(losses, loss)
  rows = dict(zip(NAMES, ROWS))
  wanted = [
    name
    for name, parameter in signature(loss).items()
    if name in rows and parameter.default is inspect.Parameter.empty
  ]
  arguments = {**{name: rows[name] for name in wanted}, **options}
  with pytest.raises(ValueError, match=message):
    loss(**arguments)


def test_implicit_reward_names_a_bad_beta():
  with pytest.raises(ValueError, match='beta must be positive, got -1'):
    losses.implicit_reward(*LOGPROBS[:2], beta=-1)
