"""What going through tokens in chunks costs, and how it composes."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.losses import chunks
from tests.losses import twins
from tests.losses.twins import (
  CHUNK,
  B,
  T,
  V,
  assert_close,
  assert_twins,
  problem,
)

KNOWN = dict.fromkeys(('teacher_head',))
MESH = jax.sharding.AbstractMesh((2, 3, 2), ('data', 'fsdp', 'tensor'))


@pytest.mark.parametrize('size', [1, B * T, 100, None])
def test_the_size_of_chunks_never_matters(size):
  assert_twins(twins.distance, problem(), chunk_size=size)


@pytest.mark.parametrize('shape', [(), (5,), (2, 3, 2)])
def test_any_leading_shape(shape):
  inputs = problem(shape=shape)
  inputs |= {'mask': jnp.ones(shape, bool), 'weights': jnp.float32(0.5)}
  (_, values), _ = assert_twins(twins.distance, inputs)
  assert values.shape == shape


@pytest.mark.parametrize('shape', [(0,), (2, 0)])
def test_no_tokens_add_up_to_nothing(shape):
  inputs = problem(shape=shape)
  inputs['args'] = {'temperature': jnp.ones(shape)}
  (total, values), grads = assert_twins(losses.forward_kl, inputs)
  assert total == 0 and values.shape == shape
  assert not np.any(grads['student_head'].kernel)
  hidden, head = inputs['student_hidden'], inputs['student_head']
  for found in (
    losses.token_statistics(hidden, head, inputs['labels']).entropy,
    losses.chunked_top_k(hidden, head, 2).tail,
  ):
    assert found.shape == shape


def test_numpy_arrays_are_read_as_jax_s():
  inputs, _ = twins.known_problem(2)
  known, inputs = inputs['teacher_hidden'], problem()
  for arrays in (inputs, {**inputs, **KNOWN, 'teacher_hidden': known}):
    found, expected = (
      losses.chunked(losses.forward_kl, **each)
      for each in (jax.tree.map(np.asarray, arrays), arrays)
    )
    assert_close(found, expected)
  hidden, head, labels = (
    inputs[name] for name in ('student_hidden', 'student_head', 'labels')
  )
  plain = jax.tree.map(np.asarray, (hidden, head, labels))
  assert_close(
    losses.token_statistics(*plain),
    losses.token_statistics(hidden, head, labels),
  )
  assert_close(
    losses.chunked_top_k(*plain[:2], 2), losses.chunked_top_k(hidden, head, 2)
  )


def test_a_gradient_is_of_its_parameters_type():
  with jax.enable_x64(True):
    wide, plain = problem(), problem()
    for name in ('student_hidden', 'student_head'):
      double = lambda x: x.astype(jnp.float64)
      wide[name] = jax.tree.map(double, wide[name])
    _, grads = twins.gradients(twins.chunked(twins.distance), wide)
    _, expected = twins.gradients(twins.chunked(twins.distance), plain)
    for found in (grads['student_hidden'], grads['student_head'].kernel):
      assert found.dtype == jnp.float64
    for name in ('student_hidden', 'student_head'):
      single = jax.tree.map(lambda x: x.astype(jnp.float32), grads[name])
      assert_close(single, expected[name])


@pytest.mark.parametrize('size', [1, 3, 8, 100])
@pytest.mark.parametrize('tokens', [1, 7, 16, 101])
def test_chunks_are_alike_and_cover_all_tokens(tokens, size):
  plan = chunks.make_plan((tokens,), V, size)
  count = -(-tokens // plan.size)
  assert plan.size <= size and count == -(-tokens // size)
  # What the last one lacks is less than a token a chunk.
  assert count * plan.size - tokens < count


def test_by_default_chunks_are_as_large_as_there_is_room():
  room, most = chunks.CHUNK_BYTES['cpu'], chunks.CHUNK_TOKENS['cpu']
  for vocab_size, expected in (
    (100, most),
    (32_128, most),
    (50_257, 64),  # 83 have room, of which one tile is whole
    (256_000, 16),
    (10**9, 8),  # never less: the head is read for each chunk
  ):
    plan = chunks.make_plan((10**6, 4), vocab_size)
    assert plan.size == expected
    assert plan.size == 8 or 4 * vocab_size * plan.size <= room
  assert chunks.make_plan((3, 4), 100).size == 12


def test_devices_split_the_rows_that_they_divide():
  axes = ('data', 'fsdp')
  assert chunks.make_plan((12, 5), V, 10, axes) == chunks.Plan(10)
  with jax.sharding.use_abstract_mesh(MESH):
    # 10 tokens a device.
    assert chunks.make_plan((12, 5), V, 10, axes) == chunks.Plan(10, axes)
    assert chunks.make_plan((12, 5), V, 10, ('data',)).axes == ('data',)
    assert chunks.make_plan((12, 5), V, 10, ('other',)).axes == ()
    for tokens in ((9, 5), ()):
      assert chunks.make_plan(tokens, V, 10, axes).axes == ()


def logits_and_twice(hidden, head, args, tokens, shared):
  """Values that are weighted, and values that are reported."""
  logits = head.logits(hidden)
  value = (logits * tokens).sum(-1) * args + shared
  return value, {'twice': 2 * value}


def test_reports_are_listed_but_weigh_nothing():
  inputs = problem()
  hidden = inputs['student_hidden'].reshape(-1, twins.D)
  weights, kept = inputs['weights'].ravel(), inputs['mask'].ravel()
  tokens = jnp.arange(B * T * 1.0)[:, None]
  packed = chunks.Inputs(
    hidden, inputs['student_head'], weights, tokens, jnp.float32(3)
  )
  plan = chunks.Plan(CHUNK)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def weighted(packed):
    return chunks.weighted(logits_and_twice, plan, packed, weights, kept)

  (total, (values, report)), grads = weighted(packed)
  expected, _ = logits_and_twice(
    hidden, packed.head, packed.args, tokens, packed.shared
  )
  expected = jnp.where(kept, expected, 0.0)
  assert_close(values, expected)
  assert_close(report['twice'], 2 * expected)
  assert_close(total, jnp.vdot(expected, weights))
  for leaf in jax.tree.leaves((grads.tokens, grads.shared)):
    np.testing.assert_array_equal(leaf, 0)
  assert_close(chunks.valued(logits_and_twice, plan, packed, kept), values)


def test_sums_over_chunks_are_float32():
  # 512 times the same, one a chunk: bfloat16, of 8 bits, would stop at 256.
  head = types.Head(jnp.ones((2, 3), jnp.bfloat16))
  hidden = jnp.ones((512, 2), jnp.bfloat16)

  def total(head):
    return losses.chunked(
      lambda logits, labels: logits.sum(-1),
      hidden,
      head,
      labels=jnp.zeros(512, int),
      weights=1.0,
      chunk_size=1,
    )[0]

  by_head = jax.jit(jax.grad(total))(head).kernel
  assert by_head.dtype == jnp.bfloat16
  np.testing.assert_array_equal(by_head, 512)


def compared(inputs, jit=True):
  """Gradients of the hidden states alone, and the total."""

  def total(hidden, mask, weight):
    given = {**inputs, 'student_hidden': hidden, 'mask': mask}
    given['weights'] = weight * inputs['weights']
    return losses.chunked(twins.distance, **given, chunk_size=CHUNK)[0]

  both = jax.value_and_grad(total)
  return jax.jit(both) if jit else both


@pytest.fixture(scope='module')
def transformed():
  """A problem, a function of its hidden states, mask and a weight, a result."""
  inputs = problem()
  function = compared(inputs, jit=False)
  point = inputs['student_hidden'], inputs['mask'], jnp.float32(0.5)
  return function, point, jax.jit(function)(*point)


def test_eager_is_jit(transformed):
  function, point, expected = transformed
  assert_close(function(*point), expected)


def test_vmap_of_hidden_states_masks_and_weights(transformed):
  function, (hidden, mask, weight), expected = transformed
  # Of 12, 21 and no tokens: each goes through chunks of its own number.
  masks = jnp.stack([mask, jnp.ones_like(mask), jnp.zeros_like(mask)])
  many = jnp.stack([hidden, jnp.cos(hidden), jnp.full_like(hidden, jnp.nan)])
  weights = weight * jnp.arange(1.0, 4.0)
  found = jax.jit(jax.vmap(function))(many, masks, weights)
  one = jax.jit(function)
  for i in range(3):
    single = one(many[i], masks[i], weights[i])
    assert_close(jax.tree.map(lambda x, i=i: x[i], found), single)
  assert_close(jax.tree.map(lambda x: x[0], found), expected)


def test_scan_and_checkpoint_around(transformed):
  function, (hidden, mask, weight), expected = transformed
  inputs = problem()

  @jax.checkpoint
  def row(hidden, head, mask, weights, other):
    return losses.chunked(
      twins.distance,
      hidden,
      head,
      other,
      inputs['teacher_head'],
      weights=weights,
      mask=mask,
      chunk_size=3,
    )[0]

  def total(hidden, head):
    def add(sum_, rows):
      hidden, *rest = rows
      return sum_ + row(hidden, head, *rest), None

    weights = weight * inputs['weights']
    rows = hidden, mask, weights, inputs['teacher_hidden']
    return jax.lax.scan(add, jnp.float32(0), rows)[0]

  head = inputs['student_head']
  value, (grad, by_head) = jax.jit(jax.value_and_grad(total, (0, 1)))(
    hidden, head
  )
  assert_close((value, grad), expected)
  _, grads = twins.gradients(
    twins.twin(twins.distance),
    {**inputs, 'weights': weight * inputs['weights']},
  )
  assert_close(jax.tree.map(lambda x: -3 * x, by_head), grads['student_head'])


def soft(student, teacher, temperature):
  return losses.soft_cross_entropy(student, teacher, temperature=temperature)


def test_traced_temperatures_as_argument_and_closed_over():
  inputs = problem()
  del inputs['args']
  temperatures = jnp.array([0.5, 1.0, 2.0])

  def total(hidden, temperature, function, closed=False):
    given = {**inputs, 'student_hidden': hidden}
    if closed:
      loss = functools.partial(soft, temperature=temperature)
      return function(loss, **given)[0]
    return function(soft, **given, args={'temperature': temperature})[0]

  def mapped(function, **options):
    single = functools.partial(total, function=function, **options)
    single = jax.value_and_grad(single, 0 if options else (0, 1))
    many = jax.vmap(single, (None, 0))
    return jax.jit(many)(inputs['student_hidden'], temperatures)

  chunked = functools.partial(losses.chunked, chunk_size=CHUNK)
  found = mapped(chunked)
  assert_close(found, mapped(twins.dense))
  assert_close(mapped(chunked, closed=True), (found[0], found[1][0]))


@pytest.mark.parametrize('kept', [0, 1, 8, 32, 33, 64])
def test_masked_tokens_cost_nothing(kept):
  calls = []

  @jax.jit
  @jax.grad
  def total(hidden, mask):
    def loss(logits, labels):
      jax.debug.callback(lambda: calls.append(1))
      return logits.sum(-1)

    return losses.chunked(
      loss,
      hidden,
      types.Head(jnp.ones((2, 3))),
      labels=jnp.zeros(64, int),
      weights=1.0,
      mask=mask,
      chunk_size=8,
    )[0]

  order = np.random.default_rng(kept).permutation(64)
  jax.block_until_ready(total(jnp.ones((64, 2)), jnp.asarray(order < kept)))
  jax.effects_barrier()
  assert len(calls) == -(-kept // 8)


# Logits of one model are 4 MiB, of a chunk 1/8 of that.
N, WIDTH, LARGE_V, LARGE_CHUNK = 256, 16, 4096, 32
LOGITS = 4 * N * LARGE_V


@functools.cache
def large(function, gradient, tied=False):
  """Returns a traced program of both heads' tables and hidden states."""
  shape = (LARGE_V, WIDTH) if tied else (WIDTH, LARGE_V)
  hidden, table = (
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((N, WIDTH), shape)
  )

  def head(table):
    return types.Head(table.T if tied else table, tied=tied)

  def total(hidden, table, teacher_hidden, teacher_table):
    return function(
      losses.forward_kl,
      hidden,
      head(table),
      teacher_hidden,
      head(teacher_table),
      weights=jnp.float32(1),
      mask=jnp.bool(True),
    )[0]

  if gradient:
    total = jax.value_and_grad(total, (0, 1))
  return jax.jit(total).trace(hidden, table, hidden, table)


@functools.cache
def temporary(function, gradient, tied=False):
  """Returns the bytes that a program holds besides its inputs and results."""
  compiled = large(function, gradient, tied).lower().compile()
  return compiled.memory_analysis().temp_size_in_bytes


def sizes(jaxpr):
  """Yields the size of every array that a program names, loops included."""
  for equation in jaxpr.eqns:
    yield from (x.aval.size for x in equation.outvars)
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from sizes(inner)


in_chunks = functools.partial(losses.chunked, chunk_size=LARGE_CHUNK)


def in_values(loss, *args, weights, **options):
  values = losses.chunked_values(loss, *args, **options, chunk_size=LARGE_CHUNK)
  return (weights * values).sum(), values


@pytest.mark.parametrize('gradient', [False, True])
@pytest.mark.parametrize('function', [in_chunks, in_values])
def test_the_logits_of_all_tokens_are_never_held(function, gradient):
  largest = max(sizes(large(twins.dense, gradient).jaxpr.jaxpr))
  assert largest == N * LARGE_V, 'the twin holds them'
  largest = max(sizes(large(function, gradient).jaxpr.jaxpr))
  assert largest == LARGE_CHUNK * LARGE_V
  # A chunk is 1/8 of all; besides it, there is the gradient of the head.
  bound = temporary(twins.dense, gradient) / 6
  assert temporary(function, gradient) < bound


def test_the_table_of_a_tied_head_is_not_copied():
  table = 4 * WIDTH * LARGE_V
  untied, tied = (temporary(in_chunks, True, tied) for tied in (False, True))
  assert tied < untied + table / 2
