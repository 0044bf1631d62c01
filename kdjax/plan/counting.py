"""What a compiled program does: FLOPs, memory traffic and collectives.

XLA's own `cost_analysis()` counts the body of a loop once. Here computations
are walked from the entry, each as often as it runs: a loop as often as XLA
knows, or as the program says by a scope `times_N` around it (loops that end
early: as often as they could run), or as its condition's constant tells. Of a
conditional the costliest branch counts; in a scope `every_N`, 1 / N of it.

FLOPs are those of matrix products (dots and convolutions), which run on other
units than the rest. Bytes are those that instructions read and write in main
memory; what a fusion does inside of it, and what lies in faster memory, costs
none. Of slices of larger arrays the slice counts. Bytes on the wire are those
that a chip sends with n - 1 others, of arrays of s bytes:

  all-gather (s the result), reduce-scatter, all-to-all:  s (n - 1) / n
  all-reduce:                                             2 s (n - 1) / n
  collective-permute:                                     s
"""

import dataclasses
import math
import re

from kdjax.plan import hlo

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
# They move nothing by themselves. Of what is asynchronous the start counts.
_FREE = {
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
  'replica-id',
  'opt-barrier',
  'iota',
}
_ALIASES = {'bitcast', 'reshape', 'copy', 'transpose', 'convert'}
_MERGED = {'bitcast', 'get-tuple-element', 'copy', 'convert'}


@dataclasses.dataclass
class Cost:
  """What a chip does.

  Attributes:
    flops: of matrix products.
    bytes: read from and written to main memory.
    wire: bytes sent to other chips, by kind of collective.
    calls: collectives, by kind.
    unknown: loops whose number of turns nothing tells; counted once.
  """

  flops: float = 0.0
  bytes: float = 0.0
  wire: dict[str, float] = dataclasses.field(default_factory=dict)
  calls: dict[str, float] = dataclasses.field(default_factory=dict)
  unknown: tuple[str, ...] = ()

  def add(self, other: 'Cost', times: float = 1.0) -> None:
    self.flops += times * other.flops
    self.bytes += times * other.bytes
    for mine, others in ((self.wire, other.wire), (self.calls, other.calls)):
      for kind, value in others.items():
        mine[kind] = mine.get(kind, 0.0) + times * value
    self.unknown = tuple(dict.fromkeys(self.unknown + other.unknown))

  @property
  def wire_bytes(self) -> float:
    return sum(self.wire.values())


def count(text: str) -> Cost:
  """Returns the cost of a compiled program on one chip.

  Args:
    text: `Compiled.as_text()`.
  """
  program = hlo.parse(text)
  return _Counter(program).cost(program.entry)


class _Counter:
  """Walks a program; costs of computations are kept."""

  def __init__(self, program: hlo.Program):
    self._program = program
    self._costs: dict[str, Cost] = {}
    self._read: dict[tuple[str, int], float] = {}

  def cost(self, computation: hlo.Computation) -> Cost:
    """Returns the cost of a computation that isn't a fusion's."""
    if computation.name not in self._costs:
      total = Cost()
      for each in computation:
        self._instruction(total, computation, each)
      self._costs[computation.name] = total
    return self._costs[computation.name]

  def _instruction(self, total, computation, each) -> None:
    program = self._program.computations
    if each.opcode == 'while':
      times = turns(self._program, computation, each)
      body = self.cost(program[each.called('body')])
      total.add(body, 1 if times is None else times)
      if times is None:
        total.add(Cost(unknown=(each.scope or each.name,)))
    elif each.opcode == 'conditional':
      total.add(*self._branches(each))
    elif each.opcode in ('call', 'async-start'):
      total.add(self.cost(program[each.called() or each.called('to_apply')]))
    elif each.opcode == 'fusion':
      self._inside(total, program[each.called()])
      total.bytes += self._traffic(computation, each)
    else:
      self._arithmetic(total, computation, each)
      total.bytes += self._traffic(computation, each)

  def _inside(self, total, computation) -> None:
    """Adds FLOPs and collectives of a fusion, whose bytes are its edges'."""
    for each in computation:
      if each.opcode == 'fusion':
        called = self._program.computations[each.called()]
        self._inside(total, called)
      else:
        self._arithmetic(total, computation, each)
        if each.opcode in KINDS and not _goes_on(each):
          # It ends elsewhere: none of the fusion's edges is its result.
          total.bytes += sum(x.hbm for x in each.arrays)

  def _arithmetic(self, total, computation, each) -> None:
    if each.opcode == 'dot':
      total.flops += _dot(computation, each)
    elif each.opcode == 'convolution':
      total.flops += _convolution(computation, each)
    kind = each.opcode.removesuffix('-start')
    if kind not in KINDS or _goes_on(each):
      return
    n = group_size(self._program, each)
    if n < 2:
      return
    given = sum(_of(computation, name).bytes for name in each.operands)
    if computation.name.startswith('all-reduce-scatter'):
      kind = 'reduce-scatter'
    share = (n - 1) / n
    wire = {
      'all-gather': n * given * share,
      'all-reduce': 2 * given * share,
      'collective-permute': given,
    }
    sent = wire.get(kind, given * share)
    total.add(Cost(wire={kind: sent}, calls={kind: 1.0}))

  def _branches(self, each: hlo.Instruction) -> tuple[Cost, float]:
    """Returns the costliest branch, and how often it is taken."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', each.attributes)
    names = re.findall(r'%([\w.\-]+)', listed.group(1)) if listed else []
    ways = ('true_computation', 'false_computation')
    names = names or [each.called(way) for way in ways]
    costs = [self.cost(self._program.computations[name]) for name in names]
    most = max(costs, key=lambda cost: (cost.flops, cost.bytes))
    every = re.search(r'every_(\d+)\)*/cond', each.scope)
    return most, 1 / int(every.group(1)) if every else 1.0

  def _traffic(self, computation, each) -> float:
    """Returns the bytes of main memory that an instruction touches."""
    if each.opcode in _FREE or each.opcode.endswith('-done'):
      return 0.0
    if each.opcode.endswith('-start'):
      # Tuples of operands, results and flags: both ends of what is moved.
      moved = [x for x in each.arrays if x.dims]
      result = min((x.bytes for x in moved), default=0)
      return sum(min(x.hbm, result) for x in moved)
    operands = [_of(computation, name) for name in each.operands]
    if each.opcode in ('dynamic-slice', 'slice', 'gather'):
      result = each.arrays[0]
      return min(operands[0].hbm, result.bytes) + result.hbm
    if each.opcode in ('dynamic-update-slice', 'scatter'):
      update = operands[1 if each.opcode == 'dynamic-update-slice' else -1]
      return update.hbm + min(each.arrays[0].hbm, update.bytes)
    if each.opcode != 'fusion':
      read = sum(x.hbm for x in operands)
      return read + sum(x.hbm for x in each.arrays)
    called = each.called()
    read = sum(
      min(x.hbm, self._reads(called, i)) for i, x in enumerate(operands)
    )
    return read + self._writes(self._program.computations[called])

  def _reads(self, name: str, index: int) -> float:
    """Returns the bytes that a fusion reads of its parameter."""
    if (name, index) not in self._read:
      computation = self._program.computations[name]
      parameter = computation.parameter(index)
      self._read[name, index] = self._used(computation, parameter)
    return self._read[name, index]

  def _used(self, computation: hlo.Computation, name: str) -> float:
    whole, total = _of(computation, name).bytes, 0.0
    for user in computation.users(name):
      first = user.operands[0] == name
      if user.opcode in ('dynamic-slice', 'slice', 'gather') and first:
        total += user.arrays[0].bytes
      elif user.opcode == 'dynamic-update-slice' and first:
        continue  # written in place
      elif user.opcode == 'tuple' or 'AsyncColl' in user.attributes:
        continue  # handed through
      elif _goes_on(user):
        continue
      elif user.opcode in _ALIASES and user.name != computation.root:
        total += self._used(computation, user.name)
      elif user.opcode == 'fusion':
        for i, operand in enumerate(user.operands):
          if operand == name:
            total += self._reads(user.called(), i)
      else:
        return whole
    return min(total, whole)

  def _writes(self, computation: hlo.Computation) -> float:
    """Returns the bytes that a fusion writes."""
    root = computation.instructions[computation.root]
    names = root.operands if root.opcode == 'tuple' else (root.name,)
    total = 0.0
    for name, result in zip(names, root.arrays):
      each = computation.instructions[name]
      if each.opcode in ('parameter', *KINDS):
        continue  # handed through
      while each.opcode in _MERGED and each.operands:
        each = computation.instructions[each.operands[0]]
      if each.opcode == 'dynamic-update-slice':
        update = _of(computation, each.operands[1]).bytes
        total += min(result.hbm, update)
      else:
        total += result.hbm
    return total


def _goes_on(each: hlo.Instruction) -> bool:
  """Whether this is a collective that started elsewhere.

  An asynchronous one stands in each of the fusions that it goes on in, those of
  loops among them; where it starts, the flag is -1.
  """
  flag = re.search(r'"flag_start":"\d+"', each.attributes)
  return each.opcode in KINDS and flag is not None


def turns(
  program: hlo.Program, computation: hlo.Computation, loop: hlo.Instruction
) -> int | None:
  """Returns how often a loop's body runs at most, None where nothing tells."""
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
  known = known or re.search(r'times_(\d+)\)*/while$', loop.scope)
  if known:
    return int(known.group(1))
  condition = program.computations[loop.called('condition')]
  body = program.computations[loop.called('body')]
  start = computation.instructions[loop.operands[0]]
  for each in condition:
    if each.opcode != 'compare' or 'direction=LT' not in each.attributes:
      continue
    index = _element(condition, each.operands[0])
    end = _constant(condition, each.operands[1])
    other = _element(condition, each.operands[1])
    if end is None and other is not None and start.opcode == 'tuple':
      end = _constant(computation, start.operands[other])
    if index is None or end is None or start.opcode != 'tuple':
      continue
    begin = _constant(computation, start.operands[index])
    step = _step(body, index)
    if begin is not None and step:
      return max(0, -(-(end - begin) // step))
  return None


def _source(computation: hlo.Computation, name: str) -> hlo.Instruction:
  """Returns what a value is a copy of."""
  each = computation.instructions[name]
  while each.opcode in ('copy', 'bitcast', 'convert'):
    each = computation.instructions[each.operands[0]]
  return each


def _element(computation: hlo.Computation, name: str) -> int | None:
  """Returns which element of the carry a value is."""
  each = _source(computation, name)
  return each.number('index') if each.opcode == 'get-tuple-element' else None


def _constant(computation: hlo.Computation, name: str) -> int | None:
  each = _source(computation, name)
  literal = each.literal.strip('{} ')
  plain = each.opcode == 'constant' and literal.lstrip('-').isdecimal()
  return int(literal) if plain else None


def _step(body: hlo.Computation, index: int) -> int | None:
  """Returns what the body adds to an element of the carry."""
  root = body.instructions[body.root]
  if root.opcode != 'tuple':
    return None
  each = _source(body, root.operands[index])
  if each.opcode != 'add':
    return None
  found = {_constant(body, name) for name in each.operands} - {None}
  return found.pop() if len(found) == 1 else None


def group_size(program: hlo.Program, each: hlo.Instruction) -> int:
  """Returns how many chips take part in a collective with each other."""
  text = each.attributes
  if each.opcode.startswith('collective-permute'):
    return 2
  if found := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
    return len(found.group(1).split(','))
  if found := re.search(r'replica_groups=\[(\d+),(\d+)\]<=', text):
    return int(found.group(2))
  if found := re.search(
    r'replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}', text
  ):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
    axes = re.findall(r"'(\w+)'", found.group(2))
    return math.prod(int(sizes[axis]) for axis in axes)
  return program.devices


def _of(computation: hlo.Computation, name: str) -> hlo.Array:
  """Returns what an instruction returns, of a tuple all in one."""
  found = computation.instructions[name].arrays
  if len(found) == 1:
    return found[0]
  return hlo.Array('s8', (int(sum(x.hbm for x in found)),))


def _dot(computation: hlo.Computation, each: hlo.Instruction) -> float:
  """2 x results x contracted."""
  left = _of(computation, each.operands[0])
  found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', each.attributes)
  axes = [int(x) for x in found.group(1).split(',') if x] if found else []
  contracted = math.prod(left.dims[axis] for axis in axes)
  return 2.0 * each.arrays[0].size * contracted


def _convolution(computation: hlo.Computation, each: hlo.Instruction) -> float:
  """2 x outputs x inputs, over the positions that lie in the array.

  TPUs' matrix products are convolutions: batches of them dilate or pad a
  window so that most positions fall outside.
  """
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', each.attributes)
  found = [_of(computation, name) for name in each.operands[:2]]
  left, right, out = (
    dict(zip(names, array.dims))
    for names, array in zip(labels.groups(), (*found, each.arrays[0]))
  )
  window = re.search(r'window=\{([^}]*)\}', each.attributes)
  words = window.group(1).split() if window else ()
  given = dict(word.split('=') for word in words)
  spatial = sorted(label for label in out if label.isdigit())

  def sizes(key, default):
    values = given[key].split('x') if key in given else [default] * len(spatial)
    return [int(str(value).split('_')[0]) for value in values]

  rules = (sizes(key, 1) for key in ('stride', 'lhs_dilate', 'rhs_dilate'))
  positions = 1
  for label, low, *rule in zip(spatial, sizes('pad', 0), *rules):
    positions *= _valid(left[label], right[label], out[label], low, *rule)
  return 2.0 * out['b'] * out['f'] * right['i'] * positions


def _valid(size, kernel, out, low, stride, spread, dilate) -> int:
  """Returns the pairs of an output and a window's place on an element."""
  places = (
    o * stride + k * dilate - low for o in range(out) for k in range(kernel)
  )
  last = (size - 1) * spread
  return sum(0 <= at <= last and at % spread == 0 for at in places)
