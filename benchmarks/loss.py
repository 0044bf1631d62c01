"""The loss alone: output heads and JSD, forward and backward.

  python -m benchmarks.loss --shape=gpt2 --out=runs/benchmarks

compares the loss on whole logits with the chunked one at several chunk sizes,
on hidden states of one batch, for values and the gradients of the student's
hidden states and head. Peak memory is over the inputs, each variant in a
process of its own; XLA's figure is what it sets aside. `--shape=tiny-llama`
takes seconds.
"""

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import memory, roofline, shapes, tables, timing
from kdjax import losses, types

SIZES = '32,64,128,256,512'


def inputs(shape: shapes.Shape, dtype: str) -> dict[str, Any]:
  """Returns hidden states [N, D] and heads; logits have deviation 1.

  A head is [D, V], or an embedding table [V, D] where the shape ties them.
  """
  keys = jax.random.split(jax.random.key(0), 4)
  tokens, found = shape.batch * shape.response, {}
  for i, role in enumerate(('student', 'teacher')):
    width = getattr(shape, role).width
    hidden = jax.random.normal(keys[2 * i], (tokens, width))
    size = (width, shape.vocabulary)
    size = size[::-1] if shape.tied else size
    found[f'{role}_hidden'] = hidden.astype(dtype)
    head = jax.random.normal(keys[2 * i + 1], size)
    found[f'{role}_head'] = head * width**-0.5
  return found


def variants(
  shape: shapes.Shape, sizes: str
) -> dict[str, Callable[..., jax.Array]]:
  """Returns functions from `inputs` to the mean loss, by name."""
  return {
    'whole logits': functools.partial(whole, shape.tied),
    'chunked': functools.partial(chunked, shape.tied, None),
    **{
      f'chunks of {size}': functools.partial(chunked, shape.tied, int(size))
      for size in filter(None, sizes.split(','))
    },
  }


def whole(tied, student_hidden, student_head, teacher_hidden, teacher_head):
  """The mean over tokens of the loss on logits [N, V]."""
  return losses.generalized_jsd(
    _head(student_head, tied).logits(student_hidden),
    _head(teacher_head, tied).logits(teacher_hidden),
  ).mean()


def chunked(
  tied, size, student_hidden, student_head, teacher_hidden, teacher_head
):
  """The same, in chunks of `size` tokens (None: kdjax's choice)."""
  tokens = student_hidden.shape[0]
  total, _ = losses.chunked(
    losses.generalized_jsd,
    student_hidden,
    _head(student_head, tied),
    teacher_hidden,
    _head(teacher_head, tied),
    weights=jnp.full(tokens, 1 / tokens),
    chunk_size=size,
  )
  return total


def _head(table: jax.Array, tied: bool) -> types.Head:
  return types.Head(table.T if tied else table, tied=tied)


def gradient(loss: Callable[..., jax.Array], given: dict[str, Any]) -> Any:
  """Compiles a loss with the gradients of the student's side."""

  def run(student, teacher):
    return loss(*student, *teacher)

  student = given['student_hidden'], given['student_head']
  teacher = given['teacher_hidden'], given['teacher_head']
  made = jax.jit(jax.value_and_grad(run)).lower(student, teacher).compile()
  return made, functools.partial(made, student, teacher)


def point(shape: dict[str, Any], dtype: str, sizes: str, name: str) -> float:
  """Returns the peak bytes of one variant; for a process of its own."""
  restored = shapes.restore(shape)
  given = jax.block_until_ready(inputs(restored, dtype))
  _, run = gradient(variants(restored, sizes)[name], given)
  peak = memory.Peak(memory.gauge())
  jax.block_until_ready(run())
  return peak.read()


def main(argv: list[str] | None = None) -> None:
  parser = tables.parser(__doc__, 'gpt2')
  parser.add_argument('--sizes', default=SIZES, help='tokens of a chunk')
  parser.add_argument('--no-peaks', action='store_true', help='time only')
  parser.add_argument('--point', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.point:
    print(json.dumps(point(**json.loads(args.point))))
    return
  shape = shapes.from_flags(args)
  given = inputs(shape, args.dtype)
  compiled = {
    k: gradient(f, given) for k, f in variants(shape, args.sizes).items()
  }
  rounds = timing.alternate(
    {
      name: functools.partial(
        timing.measure, lambda run=run: jax.block_until_ready(run()), args.calls
      )
      for name, (_, run) in compiled.items()
    },
    args.rounds,
    limit=args.limit,
  )
  peaks = roofline.measure(args.dtype)
  record = {'machine': tables.machine(), 'shape': shape, 'dtype': args.dtype}
  record |= {'rounds': rounds, 'peaks': peaks, 'rows': []}
  for row in tables.rows(rounds, 'whole logits'):
    name = row['variant']
    row['XLA temp MiB'] = memory.temporary(compiled[name][0]) / memory.MIB
    if not args.no_peaks:
      settings = {'shape': shapes.plain(shape), 'dtype': args.dtype}
      held = memory.fresh(
        'benchmarks.loss', **settings, sizes=args.sizes, name=name
      )
      row['peak MiB'] = held / memory.MIB
    took = rounds.seconds(name).median
    row |= roofline.columns(roofline.loss(shape), took, peaks)
    record['rows'].append(row)
  tokens = shape.batch * shape.response
  title = f'Loss, {tokens} tokens, V = {shape.vocabulary}, {args.dtype}'
  name = f'loss-{args.shape}-{args.dtype}'
  tables.publish(args, name, title, record, roofline.describe(peaks))


if __name__ == '__main__':
  main()
