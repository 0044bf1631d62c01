"""The loss alone in kdjax and in TRL: output heads and JSD, there and back.

  python -m benchmarks.peers_loss --shape=gpt2 --out=runs/benchmarks

on the same hidden states and heads, in alternation: kdjax's chunked loss, and
both of TRL's, the one on all logits (GKDTrainer) and the chunked one
(DistillationTrainer). Values and gradients must agree before any timing. Peak
memory is over the inputs, in a fresh process each. `--shape=tiny-llama` takes
seconds.
"""

import functools
import tempfile
from typing import Any

import numpy as np

from benchmarks import (
  memory,
  peers,
  shapes,
  tables,
  timing,
  workers,
)

SIDES = {
  'kdjax': ('benchmarks.peers_loss:ours', {}),
  'kdjax, whole logits': ('benchmarks.peers_loss:ours', {'whole': True}),
  'TRL, whole logits': ('benchmarks.peers_loss:trl_whole', {}),
  'TRL, chunked': ('benchmarks.peers_loss:trl_chunked', {}),
}
TOLERANCES = {'float32': 1e-4, 'bfloat16': 0.05}


def arrays(shape: shapes.Shape) -> dict[str, np.ndarray]:
  """Returns hidden states [N, D] and heads [V, D]; logits of deviation 1."""
  rng, found = np.random.default_rng(0), {}
  for role in ('student', 'teacher'):
    width = getattr(shape, role).width
    hidden = (shape.batch * shape.response, width)
    found[f'{role}_hidden'] = rng.standard_normal(hidden, np.float32)
    head = rng.standard_normal((shape.vocabulary, width), np.float32)
    found[f'{role}_head'] = head * width**-0.5
  return found


def ours(
  station: workers.Station, shape: dict[str, Any], dtype: str, whole=False
) -> None:
  """kdjax's loss."""
  import jax
  import jax.numpy as jnp

  from benchmarks import loss

  restored, given = shapes.restore(shape), {}
  for name, x in arrays(restored).items():
    if name.endswith('hidden'):
      given[name] = jnp.asarray(x, dtype)
    else:
      given[name] = jnp.asarray(x if restored.tied else x.T)
  name = 'whole logits' if whole else 'chunked'
  _, run = loss.gradient(loss.variants(restored, '')[name], given)

  def values():
    value, (hidden, head) = run()
    return _values(value, hidden.astype(jnp.float32), head)

  peak = memory.Peak(memory.gauge())
  devices = lambda: [each.device_kind for each in jax.devices()]
  _serve(station, lambda: jax.block_until_ready(run()), values, peak, devices)


def trl_whole(station, shape: dict[str, Any], dtype: str) -> None:
  """The loss of TRL's GKDTrainer, on all logits."""
  import torch
  from trl.experimental import gkd

  given = _tensors(shapes.restore(shape), dtype)
  labels = torch.zeros_like(given['student_hidden'][:, 0], dtype=torch.long)
  linear = torch.nn.functional.linear

  def loss():
    student = linear(given['student_hidden'], given['student_head'])
    with torch.no_grad():
      teacher = linear(given['teacher_hidden'], given['teacher_head'])
    return gkd.GKDTrainer.generalized_jsd_loss(
      student, teacher, labels=labels, beta=0.5
    )

  _serve_torch(station, given, loss, dtype)


def trl_chunked(station, shape: dict[str, Any], dtype: str) -> None:
  """The loss of TRL's DistillationTrainer, in chunks."""
  import torch
  from trl.trainer import distillation_trainer

  given = _tensors(shapes.restore(shape), dtype)
  mask = torch.ones_like(given['student_hidden'][None, :, 0])

  def loss():
    return distillation_trainer._chunked_divergence_loss(
      given['student_hidden'][None],
      given['teacher_hidden'][None],
      given['student_head'],
      given['teacher_head'],
      mask,
      0.5,
    )[0]

  _serve_torch(station, given, loss, dtype)


def _tensors(shape: shapes.Shape, dtype: str) -> dict[str, Any]:
  """Returns `arrays` as tensors."""
  import torch

  from benchmarks import torch_loop

  torch_loop.use_all_cores()
  found = {}
  for name, x in arrays(shape).items():
    tensor = torch.from_numpy(x).to(torch_loop.device())
    if name.endswith('hidden'):
      tensor = tensor.to(getattr(torch, dtype))
    found[name] = tensor.requires_grad_(name.startswith('student'))
  return found


def _serve_torch(station, given, loss, dtype: str) -> None:
  import torch

  from benchmarks import torch_loop

  leaves = [given['student_hidden'], given['student_head']]

  def run():
    with torch.autocast(
      torch_loop.device().type, torch.bfloat16, enabled=dtype == 'bfloat16'
    ):
      value = loss()
    grads = torch.autograd.grad(value, leaves)
    torch_loop.wait()
    return value.detach(), *grads

  def values():
    return _values(*(x.float().cpu() for x in run()))

  tiny = torch.ones(64, 64, requires_grad=True)
  (tiny @ tiny).sum().backward()  # starts the threads
  _serve(station, run, values, memory.Peak(torch_loop.gauge()))


def _values(value: Any, *grads: Any) -> dict[str, float]:
  """Returns what the sides are compared by."""
  found = {'loss': float(value)}
  for name, each in zip(('hidden', 'head'), grads):
    found[name] = float(np.linalg.norm(np.asarray(each)))
  return found


def _serve(station, run, values, peak: memory.Peak, devices=list) -> None:
  """Answers the driver; the first thing to be asked for is the peak."""

  def measure() -> float:
    run()
    return peak.read()

  named = {'loss': run, 'values': values, 'peak': measure}
  station.hold(named | {'devices': devices})


def start(options: dict[str, Any], folder: str) -> dict[str, workers.Worker]:
  """Starts a worker a side."""
  return {
    name: workers.Worker(name, entry, options | more, f'{folder}/{i}.log')
    for i, (name, (entry, more)) in enumerate(SIDES.items())
  }


def check(found: dict[str, dict[str, float]], tolerance: float) -> float:
  """Returns how far the sides are apart, relative to kdjax's values.

  Raises:
    Unequal: further than allowed.
  """
  ours = found['kdjax']
  apart = max(
    abs(each[k] - ours[k]) / abs(ours[k])
    for each in found.values()
    for k in ours
  )
  if not apart <= tolerance:
    raise peers.Unequal(f'the losses differ by {apart:.1e}: {found}')
  return apart


def measure(
  args: Any, options: dict[str, Any]
) -> tuple[dict[str, float], float, timing.Rounds, list[str]]:
  """Returns peaks, the distance between the sides, the rounds and devices."""
  with tempfile.TemporaryDirectory() as folder:
    started = {}
    try:
      # Peaks in processes of their own: their allocator is slower.
      with memory.environment():
        started = start(options, folder)
        peaks = {name: each.call('peak') for name, each in started.items()}
      for worker in started.values():
        worker.stop()
      started = start(options, folder)
      values = {name: each.call('values') for name, each in started.items()}
      apart = check(values, TOLERANCES[args.dtype])
      takes = {
        name: functools.partial(each.time, 'loss', args.calls)
        for name, each in started.items()
      }
      rounds = timing.alternate(takes, args.rounds, limit=args.limit)
      return peaks, apart, rounds, started['kdjax'].call('devices')
    finally:
      for worker in started.values():
        worker.stop()


def main(argv: list[str] | None = None) -> dict[str, Any]:
  args = tables.parser(__doc__, 'gpt2').parse_args(argv)
  shape = shapes.from_flags(args)
  options = {'shape': shapes.plain(shape), 'dtype': args.dtype}
  held, apart, rounds, devices = measure(args, options)
  rows = []
  for row in tables.rows(rounds, 'kdjax'):
    bytes_held = held[row['variant']]
    row['peak MiB'] = bytes_held / memory.MIB
    row['times kdjax'] = bytes_held / held['kdjax']
    rows.append(row)
  facts = tables.machine(peers=True) | {'devices': devices}
  record = {'machine': facts, 'shape': shape, 'dtype': args.dtype}
  record |= {'distance': apart, 'rounds': rounds, 'rows': rows}
  tokens = shape.batch * shape.response
  title = (
    f'Loss, {tokens} tokens, V = {shape.vocabulary}, D = '
    f'{shape.student.width} and {shape.teacher.width}, {args.dtype}'
  )
  note = f'Values and gradient norms of all agree to {apart:.0e}.'
  tables.publish(
    args, f'peers-loss-{args.shape}-{args.dtype}', title, record, note
  )
  return record


if __name__ == '__main__':
  main()
