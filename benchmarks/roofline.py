"""What a device was measured to give, and how much of it a phase uses.

  python -m benchmarks.roofline --dtype=bfloat16

prints the rates of a large matrix product and of streaming through memory.

The work of a phase is counted from the models' sizes: products of matrices at
2 FLOPs a multiply-add and the causal half of attention's scores; of memory
traffic only what can't be avoided (parameters, key-value caches, gradients,
optimizer moments), each read or written once a pass. Activations, norms and
softmaxes are left out, so that the shares are lower bounds.
"""

import argparse
import dataclasses
import functools
import math
from typing import Any

from benchmarks import tables, timing
from benchmarks.shapes import Shape, Tower

PARAMETER = 4  # bytes: parameters are float32 whatever they're multiplied in


@dataclasses.dataclass(frozen=True)
class Cost:
  """Work: `flops`, and `bytes` of memory traffic."""

  flops: float
  bytes: float

  def __add__(self, other: 'Cost') -> 'Cost':
    return Cost(self.flops + other.flops, self.bytes + other.bytes)

  def __mul__(self, times: float) -> 'Cost':
    return Cost(self.flops * times, self.bytes * times)


def block(family: str, tower: Tower) -> int:
  """Returns the weights of a block: 2 D^2 + 2 D D' K/N, and 2 or 3 D F."""
  d, mlp = tower.width, tower.mlp
  keys = d * (tower.kv_heads or tower.heads) // tower.heads
  return 2 * d * d + 2 * d * keys + (3 if family == 'llama' else 2) * d * mlp


def body(family: str, tower: Tower) -> int:
  """Returns the weights of all blocks; T5 has two stacks, and 4 D^2 between."""
  each = block(family, tower)
  if family == 't5':
    each = 2 * each + 4 * tower.width**2
  return tower.layers * each


def _attention(tower: Tower, pairs: float) -> float:
  """FLOPs of scores and sums over `pairs` of query and key."""
  return 4.0 * tower.width * tower.layers * pairs


def head(tower: Tower, vocabulary: int, tokens: float) -> Cost:
  """Output head on some tokens: 2 D V FLOPs each; reads D V once."""
  size = tower.width * vocabulary
  return Cost(2.0 * size * tokens, PARAMETER * size)


def forward(shape: Shape, tower: Tower) -> Cost:
  """Hidden states of a batch's responses, teacher-forced."""
  b, s, t = shape.batch, shape.prompt, shape.response
  weights = body(shape.family, tower)
  if shape.family == 't5':
    blocks, cross = tower.layers * block('t5', tower), 2 * tower.width**2
    cross *= tower.layers
    linear = b * (s * (blocks + cross) + t * (blocks + cross))
    pairs = b * (s * s + t * (t + 1) / 2 + t * s)
  else:
    n = s + t - 1
    linear, pairs = b * n * weights, b * n * (n + 1) / 2
  return Cost(2.0 * linear + _attention(tower, pairs), PARAMETER * weights)


def loss(shape: Shape) -> Cost:
  """Both heads, and the gradients of the student's: 2 n V (D' + 3 D) FLOPs."""
  tokens = shape.batch * shape.response
  student = head(shape.student, shape.vocabulary, tokens)
  return head(shape.teacher, shape.vocabulary, tokens) + student * 3


def learn(shape: Shape) -> Cost:
  """Teacher forward; student forward and twice that backward; the loss."""
  both = forward(shape, shape.teacher) + forward(shape, shape.student) * 3
  return both + loss(shape)


def generate(shape: Shape, itemsize: int = 4) -> Cost:
  """Prefill, then T tokens, each of which reads all weights and the cache."""
  tower, v = shape.student, shape.vocabulary
  b, s, t = shape.batch, shape.prompt, shape.response
  one = dataclasses.replace(shape, response=1)
  first = forward(one, tower)
  whole = forward(shape, tower)
  # What comes after the first token: the same products, a token at a time.
  later = Cost(whole.flops - first.flops, 0.0)
  weights = body(shape.family, tower)
  if shape.family == 't5':
    weights -= tower.layers * (block('t5', tower) + 2 * tower.width**2)
  keys = (tower.kv_heads or tower.heads) / tower.heads * tower.width
  slots = (t - 1) * (s + t / 2)
  traffic = PARAMETER * weights * (t - 1)
  traffic += 2 * keys * tower.layers * b * slots * itemsize
  heads = head(tower, v, b) * t
  return first + later + Cost(0.0, traffic) + heads


def optimizer(shape: Shape) -> Cost:
  """AdamW: reads gradient, parameter and two moments, writes three of them."""
  size = body(shape.family, shape.student)
  size += shape.student.width * shape.vocabulary * (1 if shape.tied else 2)
  return Cost(12.0 * size, 7.0 * PARAMETER * size)


def step(shape: Shape, itemsize: int = 4) -> Cost:
  """Rollout, teacher, loss, gradients and update."""
  return generate(shape, itemsize) + learn(shape) + optimizer(shape)


@dataclasses.dataclass(frozen=True)
class Peaks:
  """What a device gave: `flops` and `bytes` a second."""

  flops: float
  bytes: float


def measure(dtype: str = 'float32', size: int = 0, rounds: int = 5) -> Peaks:
  """Measures a matrix product and a streaming copy, the best of `rounds`.

  Args:
    dtype: of the product.
    size: of the square matrices; default 2048 on a CPU, else 8192.
    rounds: samples of each.
  """
  import jax
  import jax.numpy as jnp

  size = size or (2048 if jax.default_backend() == 'cpu' else 8192)
  x = jnp.ones((size, size), dtype)
  # Sixteen times a matrix, which no cache holds: 256 MiB on a CPU. In place:
  # a fresh result would measure the system's page faults, at a tenth.
  held = [jnp.ones(16 * size * size, jnp.float32)]
  multiply = jax.jit(jnp.matmul)
  scale = jax.jit(lambda y: y * 1.0001, donate_argnums=0)

  def stream():
    held[0] = scale(held[0]).block_until_ready()

  runs = {'multiply': lambda: multiply(x, x).block_until_ready()}
  runs['stream'] = stream
  taken = timing.alternate(
    {
      name: functools.partial(timing.measure, run) for name, run in runs.items()
    },
    rounds,
  )
  best = {k: min(each[k].seconds for each in taken.samples) for k in runs}
  traffic = 2 * held[0].nbytes
  return Peaks(2 * size**3 / best['multiply'], traffic / best['stream'])


def columns(cost: Cost, seconds: float, peaks: Peaks) -> dict[str, Any]:
  """Returns achieved rates, and their shares of what the device gave."""
  flops, traffic = cost.flops / seconds, cost.bytes / seconds
  return {
    'GFLOP/s': flops / 1e9,
    'of matmul': _share(flops / peaks.flops),
    'GB/s': traffic / 1e9,
    'of stream': _share(traffic / peaks.bytes),
  }


def _share(value: float) -> str:
  return '—' if math.isnan(value) else f'{value:.0%}'


def describe(peaks: Peaks) -> str:
  """Returns the sentence that goes with `columns`."""
  return (
    f'The device gave {peaks.flops / 1e9:.0f} GFLOP/s in a large matrix '
    f'product and {peaks.bytes / 1e9:.1f} GB/s in streaming; work is counted '
    'as in benchmarks/roofline.py.'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--size', type=int, default=0)
  parser.add_argument('--out')
  args = parser.parse_args()
  peaks = measure(args.dtype, args.size)
  facts = tables.machine()
  record = {'machine': facts, 'dtype': args.dtype, 'peaks': peaks}
  title = f'What the device gives, {args.dtype}'
  text = tables.heading(title, facts) + '\n' + describe(peaks)
  tables.write(args.out, f'roofline-{args.dtype}', record, text)


if __name__ == '__main__':
  main()
