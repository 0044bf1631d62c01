"""kdjax beside its peers, by turns, on equal work.

  pip install -e '.[bench]'
  python -m benchmarks.peers --shape=llama --out=runs/benchmarks
  python -m benchmarks.peers --shape=gpt2 --out=runs/benchmarks
  python -m benchmarks.peers --shape=t5 --out=runs/benchmarks

runs on-policy GKD in kdjax's trainer and in TRL's two, or for T5 in a plain
loop over transformers' model: the same weights, the same prompts, responses of
the same length. Before any timing, all must agree on the logits, the loss and
the gradient's norm of given responses. Three phases: `generate`; `learn`, that
is teacher, student, loss and gradient of given responses; and `step`, the next
step of the framework's own training loop, data and logging included. One
process each, of which one works at a time. `--shape=tiny-llama` takes a minute
or two.
"""

import argparse
import functools
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import roofline, shapes, tables, timing, workers

OURS = 'kdjax'
TRL = {
  'TRL GKD': 'benchmarks.trl_loop:gkd',
  'TRL Distillation': 'benchmarks.trl_loop:distillation',
}
TORCH = {'transformers': 'benchmarks.torch_loop:run'}
FILES = {
  OURS: 'kdjax.npz',
  'TRL GKD': 'gkd.npz',
  'TRL Distillation': 'distillation.npz',
  'transformers': 'torch.npz',
}
PHASES = ('generate', 'learn', 'step')

# Largest difference of logits; relative differences of loss, gradient norm and
# number of sampled tokens. In bfloat16 each framework rounds at other places.
TOLERANCES = {
  'float32': {'logits': 1e-3, 'loss': 1e-4, 'gradient_norm': 1e-3, 'tokens': 0},
  'bfloat16': {'logits': 0.3, 'loss': 0.1, 'gradient_norm': 0.1, 'tokens': 0},
}


def entries(shape: shapes.Shape) -> dict[str, str]:
  """Returns the sides that can run a shape, ours first."""
  peers = TORCH if shape.family == 't5' else TRL
  return {OURS: 'benchmarks.ours:run', **peers}


class Unequal(RuntimeError):
  """The sides don't compute the same."""


def check(
  found: Mapping[str, Mapping[str, float]],
  logits: Mapping[str, Mapping[str, np.ndarray]],
  tolerances: Mapping[str, float],
) -> dict[str, dict[str, float]]:
  """Returns how far each peer is from kdjax on given responses.

  Args:
    found: each side's 'loss', 'gradient_norm' and sampled 'tokens'.
    logits: each side's, by role.
    tolerances: see `TOLERANCES`.

  Raises:
    Unequal: further than allowed: no table may compare them.
  """
  ours, distances = found[OURS], {}
  for side, theirs in found.items():
    if side == OURS:
      continue
    apart = {k: abs(theirs[k] - ours[k]) / abs(ours[k]) for k in ours}
    apart['logits'] = max(
      float(np.abs(logits[side][role] - logits[OURS][role]).max())
      for role in ('student', 'teacher')
    )
    over = [k for k, bound in tolerances.items() if not apart[k] <= bound]
    if over:
      raise Unequal(
        f'{side} and kdjax differ on given responses by {apart}; allowed are '
        f'{dict(tolerances)}. They would not do equal work.'
      )
    distances[side] = apart
  return distances


def compare(
  rounds: timing.Rounds, cost: roofline.Cost, tokens: int, peaks: Any
) -> list[dict[str, Any]]:
  """Returns a row a side; ratios are the side's time over kdjax's."""
  found = []
  for row in tables.rows(rounds, OURS):
    took = rounds.seconds(row['variant']).median
    row['tokens/s'] = tokens / took
    found.append(row | roofline.columns(cost, took, peaks))
  return found


def best_peer(rounds: timing.Rounds) -> tuple[str, timing.Spread]:
  """Returns the fastest peer by its median, and its ratio to kdjax."""
  medians = {
    name: rounds.seconds(name).median
    for name in rounds.samples[0]
    if name != OURS
  }
  known = {k: v for k, v in medians.items() if not math.isnan(v)} or medians
  name = min(known, key=known.get)
  return name, rounds.ratios(name, OURS)


def main(argv: list[str] | None = None) -> dict[str, Any]:
  parser = tables.parser(__doc__, 'llama')
  parser.add_argument('--phases', default=','.join(PHASES))
  parser.add_argument('--sides', help='some of the sides; default: all')
  parser.add_argument(
    '--wait-policy',
    choices=('active', 'passive'),
    help="OMP_WAIT_POLICY of torch's threads: on a shared machine active ones "
    'wait for each other ten times as long as they work',
  )
  args = parser.parse_args(argv)
  if args.wait_policy:
    os.environ['OMP_WAIT_POLICY'] = args.wait_policy
  shape = shapes.from_flags(args)
  sides = entries(shape)
  if args.sides:
    sides = {name: sides[name] for name in (OURS, *args.sides.split(','))}
  # All sides stay on one GPU; jax would take three quarters of it.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.4')
  os.environ.setdefault('TRL_EXPERIMENTAL_SILENCE', '1')
  with tempfile.TemporaryDirectory() as folder:
    shapes.save(shape, folder)
    started = {}
    try:
      for name, entry in sides.items():
        options = {'shape': shapes.plain(shape), 'dtype': args.dtype}
        log = f'{folder}/{entry.replace(":", "-")}.log'
        started[name] = workers.Worker(
          name, entry, {**options, 'folder': folder}, log
        )
      return run(args, shape, pathlib.Path(folder), started)
    finally:
      for worker in started.values():
        worker.stop()


def run(
  args: argparse.Namespace,
  shape: shapes.Shape,
  folder: pathlib.Path,
  started: Mapping[str, workers.Worker],
) -> dict[str, Any]:
  """Checks, times and publishes; returns the record."""
  facts = tables.machine(peers=True)
  found = {name: worker.call('check') for name, worker in started.items()}
  logits = {name: dict(np.load(folder / FILES[name])) for name in started}
  tolerances = TOLERANCES[args.dtype]
  distances = check(found, logits, tolerances)
  print('equal work:', distances, flush=True)
  peaks = started[OURS].call('peaks')
  facts['devices'] = started[OURS].call('devices')
  itemsize = 2 if args.dtype == 'bfloat16' else 4
  costs = {
    'generate': roofline.generate(shape, itemsize),
    'learn': roofline.learn(shape),
    'step': roofline.step(shape, itemsize),
  }
  record = {
    'machine': facts,
    'shape': shape,
    'dtype': args.dtype,
    'distances': distances,
    'peaks': peaks,
    'phases': {},
  }
  parts = [title(args, shape, facts, distances)]
  for phase in args.phases.split(','):
    takes = {
      name: functools.partial(worker.time, phase, args.calls)
      for name, worker in started.items()
    }
    rounds = timing.alternate(takes, args.rounds, limit=args.limit, warmup=2)
    tokens = shape.batch * shape.response
    rows = compare(rounds, costs[phase], tokens, peaks)
    name, ratio = best_peer(rounds)
    record['phases'][phase] = {
      'rounds': rounds,
      'rows': rows,
      'best_peer': name,
      'ratio': ratio,
    }
    parts += [f"\n**{phase}**: {tables.spread(ratio)} times {name}'s speed.\n"]
    parts += [tables.markdown(rows)]
    print('\n'.join(parts[-2:]), flush=True)
  parts += ['', roofline.describe(peaks)]
  name = f'peers-{args.shape}-{args.dtype}'
  tables.write(args.out, name, record, '\n'.join(parts))
  return record


def title(
  args: argparse.Namespace,
  shape: shapes.Shape,
  facts: Mapping[str, Any],
  distances: Mapping[str, Mapping[str, float]],
) -> str:
  """Returns what stands above the tables."""
  apart = '; '.join(
    f'{side}: '
    + ', '.join(f'{k.replace("_", " ")} {v:.1e}' for k, v in each.items())
    for side, each in distances.items()
  )
  head = tables.heading(
    f'{args.shape}, V = {shape.vocabulary}, {args.dtype}, batch {shape.batch}, '
    f'{shape.prompt} + {shape.response} tokens',
    facts,
    args.limit,
  )
  return (
    f'{head}\nEqual work: same weights, prompts and lengths. On given '
    f'responses the sides differ from kdjax by ({apart}).'
  )


if __name__ == '__main__':
  main()
