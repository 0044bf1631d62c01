"""Chunked losses against their dense twins."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from tests.losses import twins
from tests.losses.twins import (
  CHUNK,
  STUDENT,
  TEACHER,
  B,
  D,
  E,
  T,
  V,
  assert_close,
  assert_twins,
  problem,
)

EACH = jnp.asarray(np.random.default_rng(1).uniform(0.2, 0.8, (B, T)))
ONE = jnp.float32(0.3)


def ratio(logits, labels, *, behaviour, advantages):
  return losses.policy_gradient(
    -losses.cross_entropy(logits, labels),
    advantages,
    behaviour_logprobs=behaviour,
    clip=0.2,
  )


# In trees, which compile in a third of the time: {name: (loss, its arguments)}.
TREES = {
  'divergences': {
    name: (loss, {'temperature': 1 + EACH} if 'kl' in name else {})
    for name, loss in losses.DIVERGENCES.items()
  },
  'arguments': {
    'jsd': (losses.generalized_jsd, {'beta': EACH}),
    'normalized': (losses.generalized_jsd, {'beta': 0.1, 'normalized': True}),
    'skew_forward_kl': (losses.skew_forward_kl, {'alpha': ONE}),
  },
  'others': {
    'dpkd_token': (losses.dpkd_token, {'beta': 1 + ONE}),
    'f_divergence': (functools.partial(losses.f_divergence, f='js'), {}),
    'soft_cross_entropy': (
      losses.soft_cross_entropy,
      {'temperature': 1 + EACH},
    ),
    'engine': (losses.engine, {'temperature': 1 + EACH}),
  },
  'labels': {
    'cross_entropy': (losses.cross_entropy, {}),
    'entropy': (lambda logits, labels: -losses.entropy(logits), {}),
    'ratio': (ratio, {'behaviour': -3 * EACH, 'advantages': EACH - 0.5}),
  },
}


def tree_of(cases):
  """Returns one loss of several, and its arguments 'name.argument'."""

  def loss(logits, other, **args):
    each = {name: {} for name in cases}
    for name, x in args.items():
      each[name.split('.')[0]][name.split('.')[1]] = x
    return {
      name: function(logits, other, **each[name])
      for name, (function, _) in cases.items()
    }

  args = {
    f'{name}.{key}': x
    for name, (_, given) in cases.items()
    for key, x in given.items()
  }
  return loss, args


@pytest.mark.parametrize('cases', TREES.values(), ids=TREES)
def test_values_and_gradients_are_the_dense_twins(cases):
  loss, args = tree_of(cases)
  inputs = problem(teacher='cross_entropy' not in cases)
  rng = np.random.default_rng(2)
  weights = {name: jnp.asarray(rng.normal(size=(B, T))) for name in cases}
  _, grads = assert_twins(loss, {**inputs, 'args': args, 'weights': weights})
  for name, by_arg in grads['args'].items():
    constant = name.startswith('ratio.')
    assert constant == (not np.any(by_arg)), name


def test_reinforce_is_cross_entropy_weighed_by_advantages():
  inputs = problem(teacher=False)

  def dense(weights, mask, **inputs):
    values = losses.policy_gradient(
      -twins.dense_values(losses.cross_entropy, **inputs), weights
    )
    return losses.masked_sum(values, mask), None

  (total, _), grads = twins.gradients(
    twins.chunked(losses.cross_entropy), inputs
  )
  (expected, _), by_autodiff = twins.gradients(dense, inputs)
  assert_close((total, grads), (expected, by_autodiff))


def test_a_loss_of_labels_reads_them_beside_a_teacher():
  assert_close(
    losses.chunked(losses.cross_entropy, **problem()),
    losses.chunked(losses.cross_entropy, **problem(teacher=False)),
  )


HEADS = {
  'tied': {'tied': True},
  'scaled and capped': {'scale': D**-0.5, 'softcap': 1.5},
  'all': {
    'bias': jnp.arange(V) / V,
    'scale': 2.0,
    'softcap': 3.0,
    'tied': True,
  },
}


@pytest.mark.parametrize('fields', HEADS.values(), ids=HEADS)
def test_any_head(fields):
  inputs = problem(**fields)
  tied = dataclasses.replace(inputs['teacher_head'], tied=True)
  assert_twins(twins.distance, {**inputs, 'teacher_head': tied})


@pytest.mark.parametrize(
  ('hidden', 'kernel', 'tied'),
  [
    ('bfloat16', 'float32', True),
    ('bfloat16', 'bfloat16', False),
    ('float32', 'bfloat16', True),
  ],
)
def test_bfloat16(hidden, kernel, tied):
  inputs = problem(bias=jnp.ones(V), tied=tied)
  for name in ('student', 'teacher'):
    inputs[f'{name}_hidden'] = inputs[f'{name}_hidden'].astype(hidden)
    head = inputs[f'{name}_head']
    inputs[f'{name}_head'] = jax.tree.map(lambda x: x.astype(kernel), head)
  # The values come of the same products. Gradients are rounded to 8 bits, that
  # of the head once a chunk: each time by up to 2^-9 of a part of it.
  assert_twins(twins.distance, inputs, rtol=2**-7)


def test_heads_are_cut_to_a_common_vocabulary():
  inputs = problem()
  kernel = jnp.pad(inputs['student_head'].kernel, ((0, 0), (0, 3)))
  inputs['student_head'] = types.Head(kernel, jnp.arange(V + 3.0))

  def cut(function):
    return lambda student_head, **inputs: function(
      twins.distance, student_head=student_head.first(V), **inputs
    )

  found = twins.gradients(cut(losses.chunked), inputs)
  assert_close(found, twins.gradients(cut(twins.dense), inputs))
  for leaf in jax.tree.leaves(found[1]['student_head']):
    np.testing.assert_array_equal(leaf[..., V:], 0)


def both(student, teacher, *, beta):
  """Several values a token, cheap ones."""
  near = beta * twins.distance(student, teacher)
  return {'near': near, 'rest': (student[..., 0], teacher[..., 1])}


def test_trees_of_losses_and_weights():
  inputs = {**problem(), 'args': {'beta': 0.3}}
  weights, mask = inputs['weights'], inputs['mask']
  # One value a token, one for a response, none.
  inputs['weights'] = {'near': weights, 'rest': (weights[:, :1], 0.0)}
  (total, values), _ = assert_twins(both, inputs)
  expected = losses.masked_sum(values['near'], mask * weights)
  expected += losses.masked_sum(values['rest'][0], mask * weights[:, :1])
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert np.all((values['rest'][1] != 0) == mask), 'weightless, but reported'


def test_values_carry_no_gradient():
  def listed(**inputs):
    total, values = losses.chunked(twins.distance, **inputs)
    return values.sum(), total

  (value, _), grads = twins.gradients(listed, problem())
  assert value > 0
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, 0)


def poisoned(inputs, mask):
  """Puts what no loss could read wherever a mask is False."""
  evil = itertools.cycle([jnp.nan, jnp.inf, -jnp.inf])

  def fill(x):
    return jnp.where(mask.reshape(B, T, *[1] * (x.ndim - 2)), x, next(evil))

  hidden = {k: fill(x) for k, x in inputs.items() if k.endswith('_hidden')}
  labels = jnp.where(mask, inputs['labels'], -100)
  args = jax.tree.map(fill, inputs['args'])
  return {**inputs, **hidden, 'labels': labels, 'args': args}


@pytest.mark.parametrize('given', ['mask', 'weights'])
@pytest.mark.parametrize('soft', [True, False])
def test_masked_tokens_never_matter(given, soft):
  loss = losses.soft_cross_entropy if soft else losses.cross_entropy
  inputs = problem(teacher=soft)
  mask = inputs['mask']
  if soft:
    inputs['args'] = {'temperature': 1 + EACH}
  if given == 'weights':
    inputs['weights'] = jnp.where(mask, inputs['weights'], 0.0)
    del inputs['mask']

  gradients = functools.partial(twins.gradients, twins.chunked(loss))
  (total, values), grads = clean = gradients(inputs)
  jax.tree.map(
    np.testing.assert_array_equal, gradients(poisoned(inputs, mask)), clean
  )
  np.testing.assert_array_equal(values != 0, mask)
  for leaf in jax.tree.leaves((grads['student_hidden'], grads['args'])):
    np.testing.assert_array_equal(leaf[~mask], 0)
    assert np.all(leaf[mask] != 0)
  if given == 'mask':
    none = {**inputs, 'mask': jnp.zeros_like(mask)}
    for leaf in jax.tree.leaves(gradients(poisoned(none, none['mask']))):
      np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize('loss', [losses.forward_kl, losses.reverse_kl])
def test_missing_tokens_of_the_vocabulary(loss):
  inputs = problem(bias=jnp.zeros(V).at[3].set(-jnp.inf))
  teacher = dataclasses.replace(inputs['teacher_head'], softcap=None)
  weights = jnp.abs(inputs['weights']).at[1, 2].set(0.0)
  inputs |= {'teacher_head': teacher, 'weights': weights}
  inputs['mask'] = jnp.ones((B, T), bool)
  # The student alone lacks one: infinite one way, also where nothing weighs it.
  (total, values), grads = assert_twins(loss, inputs)
  forward = loss is losses.forward_kl
  assert np.all(np.isinf(values)) == np.isinf(total) == forward
  # Both lack it.
  bias = teacher.bias.at[3].set(-jnp.inf)
  inputs['teacher_head'] = dataclasses.replace(teacher, bias=bias)
  (total, values), others = assert_twins(loss, inputs)
  for leaf in jax.tree.leaves((total, values, grads, others)):
    assert np.all(np.isfinite(leaf))


def test_a_label_of_no_token_is_infinite_unless_weightless():
  inputs = problem(teacher=False)
  inputs['mask'] = jnp.ones((B, T), bool)
  inputs['labels'] = inputs['labels'].at[1, 2].set(V)
  inputs['weights'] = jnp.abs(inputs['weights'])
  (total, _), grads = assert_twins(losses.cross_entropy, inputs)
  assert total == jnp.inf
  assert np.all(np.isfinite(grads['student_head'].kernel))
  inputs['weights'] = inputs['weights'].at[1, 2].set(0.0)
  (total, values), _ = assert_twins(losses.cross_entropy, inputs)
  assert np.isfinite(total) and values[1, 2] == jnp.inf


def test_one_value_a_token_under_any_cotangent():
  inputs = {**problem(), 'args': {'beta': EACH}}
  weights, mask = inputs.pop('weights'), inputs['mask']
  cotangents = {'near': weights, 'rest': (weights[::-1], jnp.sin(weights))}

  def listed(function):
    def total(**inputs):
      values = function(both, **inputs)
      return sum(
        jax.tree.leaves(jax.tree.map(whole, values, cotangents))
      ), values

    def whole(value, cotangent):
      # Cotangents of masked tokens must not count either.
      return jnp.vdot(jnp.where(mask, value, 1.0), cotangent)

    return total

  def dense(function, mask, **inputs):
    values = twins.dense_values(function, **inputs)
    return jax.tree.map(lambda x: jnp.where(mask, x, 0.0), values)

  chunked = functools.partial(losses.chunked_values, chunk_size=CHUNK)
  found = twins.gradients(listed(chunked), inputs)
  assert_close(found, twins.gradients(listed(dense), inputs))


def test_values_make_losses_of_whole_responses():
  inputs = problem(teacher=False)
  inputs.pop('weights')
  mask, reference = inputs['mask'], jnp.array([-3.0, -9.0, -2.0])

  def loss(function):
    def preference(**inputs):
      values = function(losses.cross_entropy, **inputs)
      logprobs = -jnp.where(mask, values, 0.0).sum(-1)
      margin = logprobs - reference
      return -jax.nn.log_sigmoid(0.3 * (margin[0] - margin[1:])).sum(), values

    return preference

  def dense(loss, mask, **inputs):
    return jnp.where(mask, twins.dense_values(loss, **inputs), 0.0)

  chunked = functools.partial(losses.chunked_values, chunk_size=CHUNK)
  found = twins.gradients(loss(chunked), inputs)
  assert_close(found, twins.gradients(loss(dense), inputs))


WRONG = {
  'labels missing': ({'labels': None}, 'labels is None: give them, or teacher'),
  'labels': ({'labels': jnp.zeros((B, 2), int)}, r'labels of shape \(3, 2\)'),
  'weights': (
    {'weights': jnp.ones(T + 1)},
    r'weights of shape \(8,\).*\(3, 7\)',
  ),
  'mask': (
    {'mask': jnp.ones((T, B), bool)},
    r'mask of shape \(7, 3\).*\(3, 7\)',
  ),
  'student width': (
    {'student_hidden': jnp.ones((B, T, 9))},
    r'student_hidden of shape \(3, 7, 9\).*student_head.*\(6, 11\)',
  ),
  'head missing': ({'teacher_head': None}, 'teacher_head is None'),
  'teacher width': (
    {'teacher_head': types.Head(jnp.ones((9, V)))},
    r'teacher_hidden of shape \(3, 7, 5\).*teacher_head.*\(9, 11\)',
  ),
  'tokens': (
    {'teacher_hidden': jnp.ones((B, T - 1, E))},
    r'same tokens, got shapes \(3, 7, 6\) and \(3, 6, 5\)',
  ),
  'vocabularies': (
    {'teacher_head': types.Head(jnp.ones((E, V + 1)))},
    r'vocabularies of 11 and 12.*head.first\(count\)',
  ),
  'args': ({'args': {'beta': jnp.ones(B)}}, r'beta of shape \(3,\)'),
  'number': ({'args': {'temperature': 0.0}}, 'positive, got 0.0'),
  'chunk_size': ({'chunk_size': 0}, 'chunk_size is 0; it must be 1 or more'),
}


@pytest.mark.parametrize(('changes', 'message'), WRONG.values(), ids=WRONG)
def test_bad_arguments_are_named(changes, message):
  inputs = {**problem(teacher='labels' not in changes), **changes}
  loss = losses.cross_entropy if 'labels' in changes else losses.generalized_jsd
  with pytest.raises(ValueError, match=message):
    losses.chunked(loss, **inputs)
  del inputs['weights']
  if 'weights' not in changes:
    with pytest.raises(ValueError, match=message):
      losses.chunked_values(loss, **inputs)


def test_a_loss_that_reduces_is_refused():
  reduced = lambda student, teacher: losses.forward_kl(student, teacher).mean()
  with pytest.raises(
    ValueError, match=r'one value a token.*got shapes \[\(\)\]'
  ):
    losses.chunked(reduced, **problem())


def test_every_input_is_tested():
  # `problem` holds all that `chunked` reads.
  assert set(problem()) == {*STUDENT, *TEACHER, 'labels', 'mask', 'weights'}
