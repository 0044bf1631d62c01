"""Matched layers: which, over which tokens, and by what of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, models, types
from kdjax.objective import LOSSES, Reading, Term, View
from kdjax.objective.features import by_layer, layers, pairs

B, S, T = 2, 5, 3
CONFIGS = {
  't5': {
    'model_type': 't5',
    'd_model': 8,
    'd_kv': 4,
    'd_ff': 16,
    'num_heads': 2,
    'num_layers': 2,
    'num_decoder_layers': 3,
  },
  'gpt2': {
    'model_type': 'gpt2',
    'n_embd': 8,
    'n_head': 2,
    'n_layer': 3,
    'n_positions': 16,
  },
}
KINDS = {
  't5': ('hidden', 'attention', 'cross_attention'),
  'gpt2': ('hidden', 'attention'),
}
MATCHES = ('hidden_distance', 'cosine_distance', 'adversarial')


@pytest.mark.parametrize('family', CONFIGS)
def test_layers_are_alike_scanned_or_not(family):
  config = {**CONFIGS[family], 'vocab_size': 11}
  made = models.from_config(config, jax.random.key(0))
  prompt = types.Prompt(jnp.ones((B, S), jnp.int32), jnp.ones((B, S), bool))
  tokens = jnp.arange(B * T).reshape(B, T)
  found = []
  for scan in (False, True):
    model, params = models.copy_layers(made, {}, scan=scan)
    _, captured = model.hidden_states(
      params, prompt, tokens, capture=KINDS[family]
    )
    found.append(by_layer(captured))
  unrolled, scanned = found
  depths = {stack: len(blocks) for stack, blocks in unrolled.items()}
  expected = {'encoder': 2, 'decoder': 3} if family == 't5' else {'decoder': 3}
  assert depths == expected
  assert jax.tree.structure(unrolled) == jax.tree.structure(scanned)
  # Another order of float32 sums.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    unrolled,
    scanned,
  )


def test_layers_of_a_stack_are_taken_in_order():
  captured = {'decoder': tuple({'hidden': i} for i in range(3))}
  assert layers(captured, 'decoder', 'hidden') == [0, 1, 2]


def test_what_a_model_lacks_is_named():
  captured = {'decoder': ({'hidden': 0, 'attention': 1},)}
  with pytest.raises(
    ValueError,
    match=r"stack='encoder': the model has only \['decoder'\]; set loss_args",
  ):
    layers(captured, 'encoder', 'hidden')
  with pytest.raises(
    ValueError, match='the decoder of the model has no cross_attention: set'
  ):
    layers(captured, 'decoder', 'cross_attention')


def matched(student, teacher, strategy='', target_layer=None, seed=0):
  return pairs(
    range(student), range(teacher), strategy=strategy,
    target_layer=target_layer, seed=seed, scale='ignored',
  )  # fmt: skip


def test_equal_depths_are_matched_one_to_one():
  assert matched(3, 3) == ((0, 0), (1, 1), (2, 2))


def test_unequal_depths_need_a_strategy():
  with pytest.raises(
    ValueError, match=r'student has 2 layers and the teacher 6: set loss_args'
  ) as error:
    matched(2, 6)
  assert all(repr(name) in str(error.value) for name in losses.STRATEGIES)


def test_strategies_are_those_of_the_losses():
  for strategy in losses.STRATEGIES:
    expected = losses.select_layers(strategy, 2, 6)
    assert matched(2, 6, strategy) == expected
  # Schedules make floats of numbers; layers are counted.
  assert matched(2, 6, 'all_to_one', 4.0) == ((0, 4), (1, 4))
  found = {matched(2, 6, 'random', seed=float(seed)) for seed in range(9)}
  assert len(found) > 1
  with pytest.raises(ValueError, match='target_layer=4'):
    matched(2, 6, 'forward', 4)


# Two students of 2 layers, and a teacher of 4.


def captured(seed, depth, width, heads=2):
  """What a pair of stacks captured: decoder [B, T, D], encoder [B, S, D]."""
  found = {}
  for i, (stack, length) in enumerate((('decoder', T), ('encoder', S))):
    keys = jax.random.split(jax.random.key(10 * seed + i), depth)
    found[stack] = tuple(
      {
        'hidden': jax.random.normal(key, (B, length, width)),
        'attention': jax.nn.softmax(
          jax.random.normal(key, (B, heads, length, length))
        ),
      }
      for key in keys
    )
  return found


def reading(student, teacher):
  masks = [
    jnp.arange(n) < jnp.array(k)[:, None] for n, k in ((S, (5, 2)), (T, (3, 1)))
  ]
  view = View(
    types.Prompt(jnp.zeros((B, S), jnp.int32), masks[0]),
    types.Response(jnp.zeros((B, T), jnp.int32), masks[1]),
    jnp.ones(B, bool),
    teacher_layers=teacher,
  )
  return Reading(view, None, layers=student)


def shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def auxiliary(term, student, teacher):
  args = LOSSES[term.loss].filled(term.loss_args)
  return LOSSES[term.loss].auxiliary(
    jax.random.key(7), shapes(student), shapes(teacher), **args
  )


def values(term, read, params=None):
  args = term.args(jnp.int32(0))
  found = LOSSES[term.loss].target((read.view,), reward='', group=1, **args)
  return found, term.values(jnp.int32(0), (read,), found, params)[0]


def term(loss, **args):
  made = Term('t', loss, loss_args=args)
  assert made.problems() == []
  return made


@pytest.mark.parametrize('stack', ['encoder', 'decoder'])
def test_values_add_up_over_the_matched_layers(stack):
  student, teacher = captured(1, 2, 4), captured(2, 6, 4)
  read = reading(student, teacher)
  a, b = student[stack], teacher[stack]
  options = {'scale': 0.5, 'mean': True, 'normalize': True}
  # 'forward' takes layers 2 and 5 of six.
  for loss, args, distance, kind in (
    ('hidden_distance', options, losses.hidden_distance, 'hidden'),
    ('hidden_distance', {}, losses.hidden_distance, 'hidden'),
    ('cosine_distance', {}, losses.cosine_distance, 'hidden'),
  ):
    one = term(loss, stack=stack, strategy='forward', **args)
    _, found = values(one, read)
    expected = sum(
      distance(a[i][kind], b[j][kind], **args) for i, j in ((0, 2), (1, 5))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  for kind in ('mse', 'kl'):
    one = term(
      'attention_distance', stack=stack, strategy='forward', distance=kind
    )
    _, found = values(one, read)
    expected = sum(
      losses.attention_distance(a[i]['attention'], b[j]['attention'], kind=kind)
      for i, j in ((0, 2), (1, 5))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_attention_is_matched_in_the_decoder():
  def crossed(seed):
    key = jax.random.key(seed)
    rows = jax.nn.softmax(jax.random.normal(key, (B, 2, T, S)))
    return {'decoder': ({'cross_attention': rows},)}, rows

  (student, a), (teacher, b) = crossed(0), crossed(1)
  _, found = values(term('cross_attention_distance'), reading(student, teacher))
  np.testing.assert_allclose(found, losses.attention_distance(a, b), rtol=1e-5)


def test_a_strategy_may_weigh_all_of_the_teachers_layers():
  student, teacher = captured(1, 2, 4), captured(2, 6, 4)
  one = term('hidden_distance', strategy='weighted')
  _, found = values(one, reading(student, teacher))
  stacked = jnp.stack(layers(teacher, 'decoder', 'hidden'))
  expected = sum(
    losses.hidden_distance(own, losses.combine_layers(own, stacked))
    for own in layers(student, 'decoder', 'hidden')
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_strategy_without_layers_leaves_nothing():
  student, teacher = captured(1, 2, 4), captured(2, 6, 4)
  one = term('hidden_distance', strategy='none')
  _, found = values(one, reading(student, teacher))
  np.testing.assert_array_equal(found, np.zeros((B, T)))


def test_prompts_count_in_the_encoder_and_responses_in_the_decoder():
  read = reading(captured(1, 2, 4), captured(2, 2, 4))
  for stack, mask in (
    ('encoder', read.view.prompt.mask),
    ('decoder', read.view.response.mask),
  ):
    target, found = values(term('hidden_distance', stack=stack), read)
    np.testing.assert_array_equal(target.mask, mask)
    assert found.shape == mask.shape


@pytest.mark.parametrize('loss', MATCHES)
def test_projections_are_made_where_widths_differ(loss):
  student, wider = captured(1, 2, 4), captured(2, 6, 7)
  one = term(loss, strategy='forward')
  made = auxiliary(one, student, wider)
  assert {name: x['projection'].shape for name, x in made.items()} == {
    'layer_0': (4, 7),
    'layer_1': (4, 7),
  }
  first, second = (made[f'layer_{i}']['projection'] for i in range(2))
  assert np.any(first != second)
  alike = auxiliary(one, student, captured(2, 6, 4))
  assert not any('projection' in x for x in alike.values())
  # The last of the student's layers alone.
  assert set(auxiliary(term(loss, strategy='last'), student, wider)) == {
    'layer_1'
  }
  weighted = auxiliary(term(loss, strategy='weighted'), student, wider)
  assert weighted['layer_0']['projection'].shape == (4, 7)


@pytest.mark.parametrize('loss', ['hidden_distance', 'cosine_distance'])
def test_each_layer_is_projected_by_its_own(loss):
  student, teacher = captured(1, 2, 4), captured(2, 2, 7)
  one = term(loss)
  made = auxiliary(one, student, teacher)
  _, found = values(one, reading(student, teacher), made)
  distance = getattr(losses, loss)
  expected = sum(
    distance(
      student['decoder'][i]['hidden'],
      teacher['decoder'][i]['hidden'],
      made[f'layer_{i}']['projection'],
    )
    for i in range(2)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'loss', ['hidden_distance', 'cosine_distance', 'attention_distance']
)
def test_models_of_one_width_need_no_parameters(loss):
  assert auxiliary(term(loss), captured(1, 2, 4), captured(2, 2, 4)) == {}
  # Attention has no width.
  assert not auxiliary(
    term('attention_distance'), captured(1, 2, 4), captured(2, 2, 7, heads=3)
  )


@pytest.mark.parametrize('width, teachers', [(None, 4), (9, 4), (9, 7)])
def test_each_layer_has_a_discriminator_of_its_own(width, teachers):
  student, teacher = captured(1, 2, 4), captured(2, 2, teachers)
  one = term('adversarial', width=width)
  made = auxiliary(one, student, teacher)
  judges = [made[f'layer_{i}']['discriminator'] for i in range(2)]
  for judge in judges:
    assert judge['hidden']['kernel'].shape == (teachers, width or teachers)
  kernels = [judge['hidden']['kernel'] for judge in judges]
  assert np.any(kernels[0] != kernels[1])
  _, found = values(one, reading(student, teacher), made)
  expected = sum(
    sum(
      losses.adversarial(
        judges[i],
        student['decoder'][i]['hidden'],
        teacher['decoder'][i]['hidden'],
        made[f'layer_{i}'].get('projection'),
      )
    )
    for i in range(2)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_depths_that_differ_are_refused_before_any_step():
  with pytest.raises(ValueError, match='student has 2 layers and the teacher'):
    auxiliary(term('hidden_distance'), captured(1, 2, 4), captured(2, 6, 4))


@pytest.mark.parametrize('loss', MATCHES + ('attention_distance',))
def test_no_gradient_reaches_the_teacher(loss):
  student, teacher = captured(1, 2, 4), captured(2, 2, 4)
  one = term(loss)
  made = auxiliary(one, student, teacher)

  def total(student, teacher):
    return values(one, reading(student, teacher), made)[1].sum()

  moved, still = jax.grad(total, (0, 1))(student, teacher)
  assert any(np.any(x) for x in jax.tree.leaves(moved))
  assert not any(np.any(x) for x in jax.tree.leaves(still))


def test_what_a_loss_captures_is_what_it_matches():
  for loss in MATCHES:
    assert term(loss).needs() == {'teacher', 'hidden'}
  for kind in ('attention', 'cross_attention'):
    assert term(f'{kind}_distance').needs() == {'teacher', kind}
