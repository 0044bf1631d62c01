"""The whole step: rollout, teacher, loss, gradients, update.

  python -m benchmarks.step --shape=llama --out=runs/benchmarks

compares ways to one result: tokens whose logits are held at a time, a program a
phase, micro-batches, recomputed and scanned layers; and rollouts a step ahead,
whose result is another. Data and logging are left out; `benchmarks.peers` has
them. `--shape=tiny-llama` takes seconds.
"""

from typing import Any

from benchmarks import phases, programs, roofline, shapes, tables

# Variants that run a step otherwise: methods of `programs.Parts`.
WAYS = {'a program a phase': 'by_phases', 'rollouts ahead': 'ahead'}


def variants(shape: shapes.Shape) -> dict[str, tuple[dict, dict]]:
  """Returns options of models and of `step.Settings`, by name."""
  return {
    'base': ({}, {}),
    **dict.fromkeys(WAYS, ({}, {})),
    'logits of 64 tokens': ({}, {'chunk_size': 64}),
    'logits of all tokens': ({}, {'chunk_size': 10**9}),
    'micro-batches of half': ({}, {'micro_batch': shape.batch // 2}),
    'micro-batches of 1': ({}, {'micro_batch': 1}),
    'recomputed layers': ({'remat': True}, {}),
    'scanned layers': ({'scan': True}, {}),
    'both divergences measured': ({}, {'measure_every': 1}),
    # As `share_programs` has it, for the runs of a sweep.
    'numbers as arguments': ({}, {'shared': True}),
  }


def main(argv: list[str] | None = None) -> dict[str, Any]:
  parser = tables.parser(__doc__, 'llama')
  parser.add_argument('--variants', help='some of the names; default: all')
  args = parser.parse_args(argv)
  shape = shapes.from_flags(args)
  made = {}
  for name, options in phases.chosen(variants(shape), args.variants).items():
    model, settings = options
    settings = {'measure_every': 10**6, **settings}
    pair = programs.fresh(shape, args.dtype, **model)
    parts = programs.make(shape, pair, **settings)
    made[name] = getattr(parts, WAYS.get(name, 'update'))
  itemsize = 2 if args.dtype == 'bfloat16' else 4
  cost = roofline.step(shape, itemsize)
  tokens = shape.batch * shape.response
  return phases.run(args, 'step', made, cost, tokens)


if __name__ == '__main__':
  main()
