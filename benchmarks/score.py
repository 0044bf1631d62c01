"""The teacher's part: what it says of given responses.

  python -m benchmarks.score --shape=llama --out=runs/benchmarks

compares the jitted `score` of a step, which hands over hidden states, with the
teacher's logits on all of them, and scanned with unrolled layers.
`--shape=tiny-llama` takes seconds.
"""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks import phases, programs, roofline, shapes, tables


def variants(shape: shapes.Shape, dtype: str) -> dict[str, Callable[[], Any]]:
  """Returns functions that score a batch and wait, by name."""
  base = programs.make(shape, programs.fresh(shape, dtype))
  scanned = programs.fresh(shape, dtype, scan=True)
  scanned = programs.make(shape, scanned)
  said = programs.response(shape)
  teacher = base.settings.teacher

  @jax.jit
  def logits(params):
    hidden = teacher.hidden_states(params, base.batch.prompt, said.tokens)
    return teacher.head(params, hidden)

  def score(parts):
    found = parts.program.score(parts.state, parts.frozen, parts.batch, (said,))
    return jax.block_until_ready(found)

  return {
    'score': lambda: score(base),
    'with logits': lambda: logits(base.frozen['teacher']).block_until_ready(),
    'scanned layers': lambda: score(scanned),
  }


def main(argv: list[str] | None = None) -> dict[str, Any]:
  parser = tables.parser(__doc__, 'llama')
  parser.add_argument('--variants', help='some of the names; default: all')
  args = parser.parse_args(argv)
  shape = shapes.from_flags(args)
  made = phases.chosen(variants(shape, args.dtype), args.variants)
  tokens = shape.batch * (shape.prompt + shape.response)
  cost = roofline.forward(shape, shape.teacher)
  return phases.run(args, 'score', made, cost, tokens)


if __name__ == '__main__':
  main()
