"""Reads a compiled program: `Compiled.as_text()` as computations.

Only what `counting` needs of XLA's text format: names, shapes, operands, and
attributes as text.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = re.compile(r'[a-z]+(\d+)')
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?')
_SPACE = re.compile(r'S\((\d+)\)')
_NAME = re.compile(r'%([\w.\-]+)')
_LINE = re.compile(r'^\s+(ROOT )?%([\w.\-]+) = (.*)$')
_HEADER = re.compile(r'^(ENTRY )?%([\w.\-]+) \(.*\{$')
_OPCODE = re.compile(r'\s*([\w\-]+)\(')


@dataclasses.dataclass(frozen=True)
class Array:
  """One array: dtype, dimensions, and the memory space that it is in."""

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> float:
    if self.dtype == 'pred':
      return self.size
    bits = _BITS.match(self.dtype)
    return self.size * int(bits.group(1)) / 8 if bits else 0

  @property
  def hbm(self) -> float:
    """Its bytes, where it is in the chip's main memory."""
    return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a computation.

  Attributes:
    name: unique in its computation.
    arrays: what it returns, a tuple's in order, all levels.
    opcode: such as 'fusion'.
    operands: names; of constants and parameters none.
    literal: what stands in the parentheses.
    attributes: what stands behind them.
  """

  name: str
  arrays: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  literal: str
  attributes: str

  def called(self, key: str = 'calls') -> str | None:
    """Returns the computation that an attribute names."""
    found = re.search(rf'\b{key}=%([\w.\-]+)', self.attributes)
    return found.group(1) if found else None

  @property
  def scope(self) -> str:
    """Where it comes from: `jax.named_scope` and functions' names."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found.group(1) if found else ''

  def number(self, key: str) -> int | None:
    """Returns the attribute `key=3`."""
    found = re.search(rf'\b{key}=(\d+)', self.attributes)
    return int(found.group(1)) if found else None


@dataclasses.dataclass
class Computation:
  """Instructions by name, in order; `root` is what it returns."""

  name: str
  instructions: dict[str, Instruction] = dataclasses.field(default_factory=dict)
  root: str = ''

  def __iter__(self) -> Iterator[Instruction]:
    return iter(self.instructions.values())

  def parameter(self, index: int) -> str | None:
    """Returns the name of a parameter."""
    for each in self:
      if each.opcode == 'parameter' and each.literal == str(index):
        return each.name
    return None

  def users(self, name: str) -> list[Instruction]:
    return [each for each in self if name in each.operands]


@dataclasses.dataclass(frozen=True)
class Program:
  """All computations by name, where it starts, and over how many devices."""

  computations: dict[str, Computation]
  entry: Computation
  devices: int


def parse(text: str) -> Program:
  """Returns the computations of an HLO module's text.

  Raises:
    ValueError: the text holds none.
  """
  found, entry, current = {}, None, None
  for line in text.splitlines():
    if header := _HEADER.match(line):
      current = Computation(header.group(2))
      found[current.name] = current
      entry = current if header.group(1) else entry
    elif current is not None and (match := _LINE.match(line)):
      instruction = _instruction(match.group(2), match.group(3))
      current.instructions[instruction.name] = instruction
      if match.group(1):
        current.root = instruction.name
  if entry is None:
    raise ValueError(f'this is not an HLO module: {text[:200]!r}')
  devices = re.search(r'num_partitions=(\d+)', text.split('\n', 1)[0])
  return Program(found, entry, int(devices.group(1)) if devices else 1)


def arrays(text: str) -> tuple[Array, ...]:
  """Returns the arrays of a shape, a tuple's in order.

  >>> arrays('(f32[2,3]{1,0:T(8,128)S(1)}, pred[])')[0].dims
  (2, 3)
  """
  found = []
  for dtype, dims, layout in _ARRAY.findall(text):
    space = _SPACE.search(layout)
    sizes = tuple(int(d.strip('<=')) for d in dims.split(',') if d)
    found.append(Array(dtype, sizes, int(space.group(1)) if space else 0))
  return tuple(found)


def _instruction(name: str, text: str) -> Instruction:
  end = _closing(text, 0) if text.startswith('(') else text.index(' ')
  shape, rest = text[:end], text[end:]
  opcode = _OPCODE.match(rest)
  start = opcode.end() - 1
  end = _closing(rest, start)
  inside, attributes = rest[start + 1 : end - 1], rest[end:]
  return Instruction(
    name,
    arrays(shape),
    opcode.group(1),
    tuple(_NAME.findall(inside)),
    inside,
    attributes,
  )


def _closing(text: str, start: int) -> int:
  """Returns the place after the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i + 1
  raise ValueError(f'unbalanced parentheses in {text[start : start + 80]!r}')
