"""Costs of programs that are known by hand, compiled for a CPU and for TPUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kdjax import partitioning
from kdjax.plan import chips, counting, hlo

pytest.importorskip('libtpu')

N = 128
PRODUCT = 2.0 * N**3
SQUARE = 4.0 * N**2  # bytes


@functools.cache
def mesh(platform):
  if platform == 'cpu':
    return partitioning.make_mesh(devices=jax.devices()[:1])
  return partitioning.make_mesh(devices=chips.devices('v5e:2x2')[1])


def compiled(platform, function, *shapes, axis=None):
  """Compiles a function of arrays whose first axis is split."""
  split = NamedSharding(mesh(platform), PartitionSpec(axis))
  args = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=split) for s in shapes]
  with jax.set_mesh(mesh(platform)):
    return jax.jit(function).lower(*args).compile()


def count(platform, function, *shapes, **options):
  return counting.count(
    compiled(platform, function, *shapes, **options).as_text()
  )


def turn(x, w):
  return jnp.tanh(x @ w)


PLATFORMS = pytest.mark.parametrize('platform', ['cpu', 'tpu'])


@PLATFORMS
def test_a_scan_counts_as_often_as_it_runs(platform):
  def run(x, w):
    return jax.lax.scan(lambda x, _: (turn(x, w), None), x, length=7)[0]

  module = compiled(platform, run, (N, N), (N, N))
  cost = counting.count(module.as_text())
  assert cost.flops == 7 * PRODUCT and not cost.unknown
  # What this is for: XLA counts the body once.
  assert module.cost_analysis()['flops'] < 2 * PRODUCT


@PLATFORMS
def test_nested_scans_multiply(platform):
  def outer(x, ws):
    def inner(x, w):
      return jax.lax.scan(lambda x, _: (turn(x, w), None), x, length=3)[0], None

    return jax.lax.scan(inner, x @ ws[0], ws)[0]

  cost = count(platform, outer, (N, N), (5, N, N))
  assert cost.flops == (1 + 5 * 3) * PRODUCT


@PLATFORMS
def test_a_loop_that_may_end_early_counts_as_its_scope_says(platform):
  def run(x, w):
    def live(carry):
      return (carry[0] < 40) & (jnp.sum(carry[1]) > 0)

    def body(carry):
      return carry[0] + 4, turn(carry[1], w)

    with jax.named_scope('times_10'):
      return jax.lax.while_loop(live, body, (0, x))[1]

  assert count(platform, run, (N, N), (N, N)).flops == 10 * PRODUCT


# A CPU's compiler hides such a condition in a fusion.
@pytest.mark.parametrize('platform', ['tpu'])
def test_a_loop_without_a_scope_counts_by_its_condition(platform):
  def run(x, w):
    def live(carry):
      return (carry[0] < 40) & (jnp.sum(carry[1]) > 0)

    def body(carry):
      return carry[0] + 3, turn(carry[1], w)

    return jax.lax.while_loop(live, body, (1, x))[1]

  assert count(platform, run, (N, N), (N, N)).flops == 13 * PRODUCT


@PLATFORMS
def test_a_loop_of_unknown_length_is_named(platform):
  def run(x, w):
    def body(x):
      return turn(x, w)

    return jax.lax.while_loop(lambda x: jnp.sum(x) > 0, body, x)

  cost = count(platform, run, (N, N), (N, N))
  assert cost.flops == PRODUCT and len(cost.unknown) == 1


@PLATFORMS
@pytest.mark.parametrize(('scope', 'share'), [('every_4', 0.25), ('now', 1)])
def test_a_branch_counts_as_often_as_its_scope_says(platform, scope, share):
  def run(x, w):
    with jax.named_scope(scope):
      return jax.lax.cond(x[0, 0] > 0, lambda: turn(x, w), lambda: x)

  assert count(platform, run, (N, N), (N, N)).flops == share * PRODUCT


@PLATFORMS
@pytest.mark.parametrize(
  ('equation', 'left', 'right'),
  [
    ('bij,bjk->bik', (4, 64, 128), (4, 128, 256)),
    ('bnqh,bnkh->bnqk', (4, 2, 64, 32), (4, 2, 256, 32)),
    ('bnqk,bnkh->bqnh', (4, 2, 64, 256), (4, 2, 256, 32)),
    ('btd,dnh->bnth', (4, 64, 128), (128, 8, 32)),
    ('btf,btd->fd', (4, 64, 128), (4, 64, 256)),
  ],
)
def test_products_of_batches(platform, equation, left, right):
  sizes = dict(zip(''.join(equation.split('->')[0].split(',')), left + right))
  expected = 2.0 * np.prod([float(size) for size in sizes.values()])
  multiply = functools.partial(jnp.einsum, equation)
  assert count(platform, multiply, left, right).flops == expected


def test_bytes_of_a_product():
  cost = count('cpu', jnp.matmul, (N, N), (N, N))
  assert cost.bytes == 3 * SQUARE


@PLATFORMS
def test_a_loop_over_layers_reads_each_once(platform):
  layers, width = 8, 1024

  def run(x, ws):
    return jax.lax.scan(lambda x, w: (turn(x, w), None), x, ws)[0]

  cost = count(platform, run, (8, width), (layers, width, width))
  weights = 4.0 * layers * width**2
  # A copy of the layer, where the compiler makes one, is twice that besides;
  # not all layers for each, which were eight times that.
  assert weights <= cost.bytes < 3.2 * weights


def each_of_four(function):
  return jax.shard_map(
    function,
    mesh=mesh('tpu'),
    in_specs=PartitionSpec('data'),
    out_specs=PartitionSpec('data'),
    check_vma=False,
  )


def around(x):
  """Sends to the next chip."""
  return jax.lax.ppermute(x, 'data', [(i, (i + 1) % 4) for i in range(4)])


@pytest.mark.parametrize(
  ('kind', 'function', 'wire'),
  [
    ('all-gather', lambda x: jax.lax.all_gather(x, 'data'), 3),
    ('all-reduce', lambda x: jax.lax.psum(x, 'data'), 1.5),
    (
      'reduce-scatter',
      lambda x: jax.lax.psum_scatter(x, 'data', tiled=True),
      0.75,
    ),
    ('all-to-all', lambda x: jax.lax.all_to_all(x, 'data', 0, 1), 0.75),
    ('collective-permute', around, 1),
  ],
)
def test_bytes_on_the_wire(kind, function, wire):
  shape = (4, 1024, 1024) if kind == 'all-to-all' else (4096, 1024)

  def local(x):
    return function(x.reshape(4, 256, 1024) if kind == 'all-to-all' else x)

  def run(x):
    return each_of_four(local)(x)

  cost = count('tpu', run, shape, axis='data')
  own = 4.0 * 1024**2
  assert dict(cost.calls) == {kind: 1}
  assert cost.wire[kind] == wire * own


def test_collectives_in_a_loop_count_as_often_as_it_runs():
  def local(x):
    def body(x, _):
      return jnp.tanh(jax.lax.psum(x, 'data')), None

    return jax.lax.scan(body, x, length=6)[0]

  cost = count('tpu', each_of_four(local), (512, 1024), axis='data')
  assert cost.calls['all-reduce'] == 6
  assert cost.wire_bytes == 6 * 1.5 * 4 * 128 * 1024


@pytest.mark.parametrize(
  ('groups', 'size'),
  [
    ('replica_groups={{0,1},{2,3}}', 2),
    ('replica_groups=[2,4]<=[8]', 4),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", 2),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8),
    ("replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}", 4),
    ('replica_groups={}', 8),
  ],
)
def test_group_sizes(groups, size):
  each = hlo.Instruction('x', (), 'all-reduce', (), '', f', {groups}, a=1')
  program = hlo.Program({}, hlo.Computation('main'), 8)
  assert counting.group_size(program, each) == size


def test_text_that_is_no_program():
  with pytest.raises(ValueError, match='not an HLO module'):
    hlo.parse('nothing')
