"""Preferences of hand-made pairs, against the formulas as papers print them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import types
from kdjax.objective import Reading, Target, Term, View
from kdjax.objective.pairs import target

PAIR = {'chosen': 'data', 'rejected': 'student'}
B, V = 6, 5
LENGTHS = (3, 1, 2, 3, 1, 2), (1, 2, 4, 3, 3, 1)


def response(rows):
  """Rows of tokens, None where they are masked off."""
  mask = [[token is not None for token in row] for row in rows]
  tokens = [[0 if token is None else token for token in row] for row in rows]
  return types.Response(jnp.array(tokens), jnp.array(mask))


def view(found):
  return View(None, found, found.mask.any(-1))


def counted(chosen, rejected):
  views = view(response(chosen)), view(response(rejected))
  return target(views).mask.tolist()


def test_pairs_count_whose_responses_differ():
  chosen = [[1, 2], [1, 2], [1, None], [1, 2], [None, None]]
  rejected = [[1, 2], [1, 3], [1, None], [1, None], [None, None]]
  assert counted(chosen, rejected) == [False, True, False, True, False]


def test_an_empty_response_is_compared_with_none():
  assert counted([[1], [None]], [[None], [1]]) == [False, False]


def test_what_stands_off_the_mask_makes_no_difference():
  mask = jnp.array([[True, False]])
  both = [
    view(types.Response(jnp.array([[1, padding]]), mask)) for padding in (0, 7)
  ]
  assert target(tuple(both)).mask.tolist() == [False]


def test_widths_may_differ():
  narrow = [[1, 2], [1, 2], [1, None]]
  wide = [[1, 2, None], [1, 2, 0], [2, None, None]]
  expected = [False, True, True]
  assert counted(narrow, wide) == counted(wide, narrow) == expected


def readings():
  """Two readings of other widths, with all that a preference may ask for."""
  found = []
  for i, lengths in enumerate(LENGTHS):
    width = max(lengths) + 1
    keys = jax.random.split(jax.random.key(i), 4)
    mask = jnp.arange(width) < jnp.array(lengths)[:, None]
    tokens = jax.random.randint(keys[0], mask.shape, 0, V)
    student, teacher = (
      jax.random.normal(key, (*mask.shape, V)) for key in keys[1:3]
    )
    reference = -2 * jax.random.uniform(keys[3], mask.shape)
    judged = View(
      None,
      types.Response(tokens, mask),
      mask.any(-1),
      # As `label_logprobs` leaves them: 0 off the mask.
      reference_logprobs=jnp.where(mask, reference, 0.0),
    )
    found.append(Reading(judged, student, teacher))
  return tuple(found)


def sums(read, which):
  """log-probabilities [B] of both responses, in float64."""
  found = []
  for reading in read:
    r, each = reading.view.response, reading.view.reference_logprobs
    if which != 'reference':
      logits = getattr(reading, which)
      each = np.asarray(jax.nn.log_softmax(logits))
      each = np.take_along_axis(each, np.asarray(r.tokens)[..., None], -1)
      each = each[..., 0]
    found.append(np.where(r.mask, each, 0.0).astype(np.float64).sum(-1))
  return np.array(found)


def values(loss, read, **args):
  term = Term('t', loss, PAIR, loss_args=args)
  assert term.problems() == []
  return term.values(jnp.int32(0), read, Target(jnp.ones(B, bool)))


def softplus(x):
  return np.log1p(np.exp(x))


@pytest.mark.parametrize('reference', ['reference', 'teacher'])
@pytest.mark.parametrize('length_normalized', [False, True])
@pytest.mark.parametrize('loss', ['dpkd', 'ipo', 'dpo'])
def test_losses_against_a_reference_by_hand(loss, length_normalized, reference):
  if loss == 'dpo' and length_normalized:
    return
  read, args = readings(), {'reference': reference}
  if loss != 'dpo':
    args['length_normalized'] = length_normalized
  args |= {'tau': 0.7} if loss == 'ipo' else {'beta': 0.3}
  found, metrics = values(loss, read, **args)
  which = 'reference' if reference == 'reference' else 'teacher_logits'
  scores = sums(read, 'logits') - sums(read, which)
  scores /= np.array(LENGTHS) if length_normalized else 1
  h = scores[0] - scores[1]
  expected = (h - 1 / 1.4) ** 2 if loss == 'ipo' else softplus(-0.3 * h)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  # Implicit rewards: IPO's has no beta.
  scores *= 1 if loss == 'ipo' else 0.3
  rewards = np.array([metrics['reward_chosen'], metrics['reward_rejected']])
  np.testing.assert_allclose(rewards, scores, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    metrics['reward_margin'], scores[0] - scores[1], rtol=1e-4, atol=1e-6
  )
  np.testing.assert_array_equal(metrics['accuracy'], scores[0] > scores[1])
  assert 0 < metrics['accuracy'].mean() < 1


def test_dpkd_is_normalised_against_the_teacher_by_default():
  read = readings()
  found, _ = values('dpkd', read)
  said, _ = values('dpkd', read, reference='teacher', length_normalized=True)
  np.testing.assert_array_equal(found, said)


def test_dpo_smooths_labels():
  read = readings()
  right, _ = values('dpo', read, beta=0.3)
  wrong, _ = values('dpo', read[::-1], beta=0.3)
  found, _ = values('dpo', read, beta=0.3, label_smoothing=0.25)
  np.testing.assert_allclose(found, 0.75 * right + 0.25 * wrong, rtol=1e-5)


def test_losses_without_a_reference_by_hand():
  read = readings()
  q, lengths = sums(read, 'logits'), np.array(LENGTHS)
  h = q[0] - q[1]
  mean = q[0] / lengths[0] - q[1] / lengths[1]
  for loss, args, expected in (
    ('cpo', {'beta': 0.3}, softplus(-0.3 * h)),
    ('simpo', {'beta': 1.5, 'gamma': 0.4}, softplus(0.4 - 1.5 * mean)),
    ('simpo', {}, softplus(1 - 2 * mean)),
    ('ranking', {}, softplus(-h)),
    ('ranking', {'length_normalized': True}, softplus(-mean)),
    ('ranking', {'form': 'linear'}, -h),
    ('ranking', {'form': 'hinge', 'margin': 3.0}, np.maximum(3 - h, 0)),
  ):
    found, metrics = values(loss, read, **args)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert metrics == {}


def test_what_stands_off_the_mask_never_matters_to_a_pair():
  read = readings()

  def broken(reading):
    mask = reading.mask[..., None]
    return reading._replace(
      logits=jnp.where(mask, reading.logits, jnp.nan),
      teacher_logits=jnp.where(mask, reading.teacher_logits, jnp.inf),
    )

  for loss in ('dpkd', 'cpo', 'simpo', 'ranking'):
    clean, _ = values(loss, read)
    found, _ = values(loss, tuple(map(broken, read)))
    np.testing.assert_array_equal(found, clean)


def test_no_gradient_reaches_the_reference():
  read = readings()

  def total(student, teacher, reference):
    found = tuple(
      r._replace(
        logits=q,
        teacher_logits=p,
        view=View(None, r.view.response, r.view.ended, reference_logprobs=f),
      )
      for r, q, p, f in zip(read, student, teacher, reference)
    )
    each = [
      values(loss, found, reference=name)[0].sum()
      for loss in ('dpkd', 'ipo', 'dpo')
      for name in ('teacher', 'reference')
    ]
    return sum(each)

  arguments = (
    [r.logits for r in read],
    [r.teacher_logits for r in read],
    [r.view.reference_logprobs for r in read],
  )
  student, *constants = jax.grad(total, (0, 1, 2))(*arguments)
  assert all(np.any(x) for x in student)
  assert not any(np.any(x) for x in jax.tree.leaves(constants))


def test_the_reference_that_is_read_is_the_one_that_is_named():
  def needs(loss, **args):
    return Term('t', loss, PAIR, loss_args=args).needs()

  assert needs('dpkd') == {'teacher'}
  assert needs('dpkd', reference='reference') == {'reference'}
  assert needs('dpo') == needs('ipo') == {'reference'}
  assert needs('ipo', reference='teacher') == {'teacher'}
  assert needs('cpo') == needs('simpo') == needs('ranking') == set()
