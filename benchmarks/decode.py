"""Generation alone: prefill, and T tokens of every row.

  python -m benchmarks.decode --shape=llama --out=runs/benchmarks

compares what changes how tokens are decoded: tokens between two looks at
whether all rows are done, layers scanned in place of unrolled, greedy and
truncated sampling. The end of a sequence is suppressed, so that all decode the
same. `--shape=tiny-llama` takes seconds.
"""

import functools
from typing import Any

import jax

from benchmarks import phases, programs, roofline, shapes, tables
from kdjax import sampling

# What differs from the base, by name: options of the model, and of sampling.
VARIANTS = {
  'base': ({}, {}),
  'blocks of 1': ({}, {'block': 1}),
  'blocks of 64': ({}, {'block': 64}),
  'scanned layers': ({'scan': True}, {}),
  'greedy': ({}, {'temperature': 0.0}),
  'top-k 50': ({}, {'top_k': 50}),
  'top-p 0.9': ({}, {'top_p': 0.9}),
}


def variant(shape: shapes.Shape, dtype: str, model: Any, options: Any) -> Any:
  """Returns a function that generates and waits."""
  parts = programs.make(shape, programs.fresh(shape, dtype, **model))
  generate = functools.partial(
    sampling.generate,
    parts.settings.student,
    parts.student,
    parts.batch.prompt,
    jax.random.key(0),
    max_new_tokens=shape.response,
    min_new_tokens=shape.response,
    **options,
  )
  return lambda: jax.block_until_ready(generate())


def main(argv: list[str] | None = None) -> dict[str, Any]:
  parser = tables.parser(__doc__, 'llama')
  parser.add_argument('--variants', help=f'of {list(VARIANTS)}; default: all')
  args = parser.parse_args(argv)
  shape = shapes.from_flags(args)
  variants = {
    name: variant(shape, args.dtype, *options)
    for name, options in phases.chosen(VARIANTS, args.variants).items()
  }
  itemsize = 2 if args.dtype == 'bfloat16' else 4
  cost = roofline.generate(shape, itemsize)
  tokens = shape.batch * shape.response
  return phases.run(args, 'decode', variants, cost, tokens)


if __name__ == '__main__':
  main()
