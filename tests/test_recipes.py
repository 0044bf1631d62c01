"""What each named system is made of, and identities between them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses, objective, recipes, types
from kdjax.objective import Objective, Term

LABELS = jnp.array([[0, 1, 2, 1], [3, 4, 0, 0]])
MASK = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 8}


def logits():
  keys = jax.random.split(jax.random.key(0), 2)
  return [jax.random.normal(key, (2, 4, 5)) for key in keys]


def value(goal, student, teacher=None):
  """The loss on one batch of responses, whatever their source."""
  total = 0.0
  for term in goal.terms:
    response = types.Response(LABELS, MASK)
    view = objective.View(None, response, MASK.any(-1))
    reading = objective.Reading(view, student, teacher)
    values, _ = term.values(0, (reading,), objective.Target(MASK))
    kept, number = objective.reduce(values, MASK, term.normalize)
    total += term.weight * kept / number
  return total


def plain_cross_entropy(student):
  each = optax.softmax_cross_entropy_with_integer_labels(student, LABELS)
  return jnp.sum(each * MASK) / jnp.sum(MASK)


def test_every_recipe_is_sound_as_it_stands():
  needed = {
    'terms': {'terms': [{'loss': 'forward_kl'}]},
    **dict.fromkeys(('gkd_rl', 'grpo', 'reinforce'), {'reward': 'bleu'}),
  }
  for name in recipes.RECIPES:
    args = needed.get(name, {})
    assert recipes.problems(name, args) == []
    assert recipes.build(name, **args).terms


def test_the_terms_of_the_named_systems():
  def only(name, **args):
    (term,) = recipes.build(name, **args).terms
    return term.loss, term.draws()[0].mixture(), term.normalize, term.coin

  assert only('sft')[:2] == ('cross_entropy', {'data': 1.0})
  assert only('seqkd')[:2] == ('cross_entropy', {'teacher': 1.0})
  assert only('word_kd')[:2] == ('forward_kl', {'data': 1.0})
  assert only('imitkd') == (
    'argmax_cross_entropy',
    {'student': 0.5, 'data': 0.5},
    'token',
    'example',
  )
  assert only('imitkd', soft=True)[0] == 'soft_cross_entropy'
  assert only('imitkd', source='teacher')[1] == {'student': 0.5, 'teacher': 0.5}
  assert only('gkd') == (
    'generalized_jsd',
    {'student': 0.5, 'data': 0.5},
    'sequence',
    'example',
  )
  assert only('supervised_kd')[:2] == ('forward_kl', {'data': 1.0})
  assert only('on_policy_kd')[:2] == ('forward_kl', {'student': 1.0})


def test_distillm_is_a_mixture_of_samples_of_now_and_of_earlier():
  falling = {**RISING, 'start': 1.0, 'end': 0.0}
  goal = recipes.build('distillm', student=falling, replay=RISING, alpha=0.2)
  assert goal.sources() == {'student', 'replay', 'data'}
  (term,) = goal.terms
  assert (term.loss, term.loss_args) == ('skew_forward_kl', {'alpha': 0.2})
  found = term.draws()[0].fractions(2)
  np.testing.assert_allclose(list(found.values()), [0.75, 0.25, 0.0])
  # Without earlier samples it is GKD.
  args = {'divergence': 'reverse_kl', 'normalize': 'token'}
  plain = recipes.build('distillm', student=0.5, replay=0.0, **args)
  (one,), (other,) = plain.terms, recipes.build('gkd', lam=0.5, **args).terms
  fractions = one.draws()[0].fractions(0)
  assert fractions.pop('replay') == 0.0
  assert fractions == other.draws()[0].fractions(0)
  assert (one.loss, one.normalize) == (other.loss, other.normalize)


def test_supervised_and_on_policy_are_the_ends_of_gkd():
  args = {'divergence': 'generalized_jsd', 'beta': 0.1, 'temperature': 2.0}
  assert recipes.build('supervised_kd', **args) == recipes.build(
    'gkd', lam=0.0, **args
  )
  assert recipes.build('on_policy_kd', **args) == recipes.build(
    'gkd', lam=1.0, **args
  )
  on_teacher = recipes.build('supervised_kd', source='teacher')
  assert on_teacher.sources() == {'teacher'}


def test_sft_is_plain_cross_entropy():
  student, _ = logits()
  goal = recipes.build('sft')
  assert not goal.models()
  np.testing.assert_allclose(
    value(goal, student), plain_cross_entropy(student), rtol=1e-6
  )


@pytest.mark.parametrize('name, args', [('word_kd', {}), ('imitkd', {})])
def test_a_teacher_that_is_sure_of_the_gold_is_sft(name, args):
  student, _ = logits()
  sure = jnp.where(jax.nn.one_hot(LABELS, 5) > 0, 0.0, -jnp.inf)
  goal = recipes.build(name, **args)
  expected = jax.value_and_grad(plain_cross_entropy)(student)
  found = jax.value_and_grad(lambda s: value(goal, s, sure))(student)
  for a, b in zip(found, expected):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_word_kd_weighs_soft_and_hard_labels():
  student, teacher = logits()
  kept = lambda values: losses.masked_mean(values, MASK)
  soft = kept(losses.forward_kl(student, teacher, temperature=3.0))
  hard = plain_cross_entropy(student)
  goal = recipes.build('word_kd', temperature=3.0, kd_weight=0.25, squared=True)
  np.testing.assert_allclose(
    value(goal, student, teacher), 0.25 * 9 * soft + 0.75 * hard, rtol=1e-5
  )
  assert len(goal.views()) == 1


def test_squared_keeps_the_gradient_of_hot_logits():
  # T^2 KL at a high temperature tends to half the squared distance of centred
  # logits over V (Hinton et al. 2015, section 2.1): its gradient to d / V.
  student, teacher = logits()
  centre = lambda x: x - x.mean(-1, keepdims=True)
  goal = recipes.build('word_kd', temperature=100.0, squared=True)
  grad = jax.grad(lambda s: value(goal, s, teacher))(student)
  expected = centre(student) - centre(teacher)
  expected = expected / 5 * MASK[..., None] / MASK.sum()
  np.testing.assert_allclose(
    grad, expected, atol=0.03 * jnp.abs(expected).max()
  )


def test_soft_imitkd_has_forward_kls_gradient():
  student, teacher = logits()
  soft = recipes.build('imitkd', soft=True, lam=0.0)
  kl = recipes.build('word_kd')
  grads = [
    jax.grad(lambda s, goal=goal: value(goal, s, teacher))(student)
    for goal in (soft, kl)
  ]
  np.testing.assert_allclose(*grads, atol=1e-6)


def test_scheduled_lambda_leaves_the_rest_to_the_data():
  for source in ('data', 'teacher'):
    goal = recipes.build('gkd', lam=RISING, source=source)
    assert goal.sources() == {'student', source}
    (term,) = goal.terms
    found = term.draws()[0].fractions(2)
    np.testing.assert_allclose([found['student'], found[source]], [0.25, 0.75])


def test_gkd_passes_on_normalisation_coin_and_arguments():
  goal = recipes.build(
    'gkd', lam=0.25, normalize='token', coin='batch', beta=RISING
  )
  assert goal == Objective(
    (
      Term(
        'gkd',
        'generalized_jsd',
        {'student': 0.25, 'data': 0.75},
        coin='batch',
        loss_args={'beta': RISING},
      ),
    )
  )


def test_terms_say_a_method_of_ones_own():
  js = recipes.build(
    'terms',
    terms=[
      {
        'name': 'coverage',
        'loss': 'skew_forward_kl',
        'source': {'teacher': 0.5, 'data': 'rest'},
        'weight': RISING,
        'loss_args': {'alpha': 0.5},
      },
      {'loss': 'skew_reverse_kl', 'source': 'student', 'normalize': 'sum'},
    ],
  )
  assert js.terms == (
    Term(
      'coverage',
      'skew_forward_kl',
      {'teacher': 0.5, 'data': 'rest'},
      RISING,
      loss_args={'alpha': 0.5},
    ),
    Term('skew_reverse_kl', 'skew_reverse_kl', 'student', normalize='sum'),
  )
  assert js.sources() == {'student', 'teacher', 'data'}


def test_gkd_can_be_said_in_terms():
  terms = [
    {
      'name': 'gkd',
      'loss': 'generalized_jsd',
      'source': {'student': 0.5, 'data': 0.5},
      'normalize': 'sequence',
      'loss_args': {'beta': 0.9},
    }
  ]
  assert recipes.build('terms', terms=terms) == recipes.build('gkd', beta=0.9)


@pytest.mark.parametrize(
  'name, args, parts',
  [
    ('kd', {}, ["recipe.name='kd'", "'gkd'", "'sft'", "'terms'"]),
    ('sft', {'lam': 1}, ["recipe 'sft': it takes no ['lam']; it takes []"]),
    (
      'gkd',
      {'lambda_': 1},
      ["takes no ['lambda_']", "'beta'", '; gkd takes lam, '],
    ),
    ('gkd', {'lam': 1.5}, ['source.student=1.5: expected 0 to 1']),
    ('gkd', {'lam': 'half'}, ["lam='half': expected float or Mapping"]),
    ('gkd', {'divergence': 'kl'}, ["unknown loss 'kl'", "'reverse_kl'"]),
    ('gkd', {'beta': 2, 'coin': 'x'}, ["'batch'", 'beta=2: expected 0 to 1']),
    ('gkd', {'source': 'gold'}, ["unknown sources ['gold']", "'teacher'"]),
    ('supervised_kd', {'lam': 0.5}, ["keyword argument 'lam'"]),
    ('word_kd', {'kd_weight': 2}, ['kd_weight=2: expected 0 to 1']),
    (
      'word_kd',
      {'squared': True, 'temperature': RISING},
      ['squared=True needs a number as temperature'],
    ),
    (
      'f_distill',
      {'skew': 'x', 'divergence': 3, 'lam': 1},
      ["takes no ['lam']", "skew='x': expected float", '=3: expected str'],
    ),
    (['gkd'], {}, ["recipe.name=['gkd']; known"]),
    ('gkd', {'lam': {'kind': 'linear'}}, ['missing keys']),
    ('gkd', {'lam': {**RISING, 'begin': 'x'}}, ["expected numbers in ['begin"]),
    ('gkd', {'lam': {**RISING, 'steps': math.nan}}, ['a finite number']),
    ('gkd', {'temperature': 1e39}, ['temperature=1e+39: must be 0, or from']),
    ('terms', {}, ["recipe 'terms': terms is missing"]),
    ('terms', {'terms': []}, ['needs at least one term']),
    (
      'terms',
      {'terms': ['sft', {'los': 'sft', 'source': 'data'}]},
      [
        "terms[0]='sft': expected a mapping",
        "terms[1]: it takes no ['los']; it takes ['name', 'loss', ",
        'terms[1]: loss is missing',
      ],
    ),
    (
      'terms',
      {'terms': [{'loss': 'forward_kl'}, {'loss': 'forward_kl'}]},
      ["terms share the names ['forward_kl']"],
    ),
  ],
)
def test_problems_name_the_value_and_what_is_allowed(name, args, parts):
  text = '\n'.join(recipes.problems(name, args))
  for part in parts:
    assert part in text
  with pytest.raises(ValueError) as error:
    recipes.build(name, **args)
  assert str(error.value) == text


@pytest.mark.parametrize(
  'args, hinted',
  [
    ({'beta': 1.5}, [False]),
    ({'lambda_': 1}, [True]),
    ({'lambda_': 1, 'beta': 1.5}, [True, False]),
  ],
)
def test_what_a_recipe_takes_is_told_with_an_unknown_name(args, hinted):
  found = recipes.problems('gkd', args)
  assert ['; gkd takes lam, ' in problem for problem in found] == hinted
