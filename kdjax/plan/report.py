"""A plan as Markdown, and as data."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kdjax.models import kernels
from kdjax.plan import advice, chips, counting, programs
from kdjax.plan.job import Job

_GIB = chips.GIB


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that a plan says.

  Attributes:
    topology: such as 'v5e:4x4'.
    chip: what it is made of.
    job: the config's.
    programs: as compiled.
  """

  topology: str
  chip: chips.Chip
  job: Job
  programs: tuple[programs.Program, ...]

  @property
  def largest(self) -> programs.Program:
    return max(self.programs, key=lambda each: each.peak)

  @property
  def spare(self) -> float:
    """Bytes a chip that are left; less than 0 where it doesn't fit."""
    return self.chip.hbm - self.largest.peak

  @property
  def fits(self) -> bool:
    return self.spare >= 0

  @property
  def changes(self) -> list[advice.Change]:
    return advice.changes(self.job, self.chip, self.largest)

  @property
  def seconds(self) -> float | None:
    """The least time of a step, None where something couldn't be counted."""
    found = [programs.roofline(each, self.chip) for each in self.programs]
    return None if None in found else sum(each for each, _ in found)

  @property
  def tokens(self) -> int:
    """Response tokens that a step learns from, at most."""
    c, settings = self.job.config, self.job.settings
    return c.batch_size * settings.samples * c.task.max_response_tokens


def markdown(plan: Plan) -> str:
  """Returns the report."""
  blocks = [
    f'# Plan for {plan.topology}',
    _verdict(plan),
    _about(plan),
    '## Memory per chip',
    _memory(plan),
    '## Work per chip and step',
    _work(plan),
    '## Collectives per chip and step',
    _collectives(plan),
    '## Time (estimates)',
    _time(plan),
    _notes(plan),
  ]
  return '\n\n'.join(block for block in blocks if block) + '\n'


def data(plan: Plan) -> dict[str, Any]:
  """Returns the same as numbers: bytes, FLOPs and seconds."""
  found = []
  for each in plan.programs:
    entry = dataclasses.asdict(each) | {'peak': each.peak}
    if limit := programs.roofline(each, plan.chip):
      entry['estimate'] = programs.seconds(each.cost, plan.chip)
      entry['limit'] = limit[1]
    found.append(entry)
  return {
    'topology': plan.topology,
    'chips': plan.job.mesh.size,
    'mesh': dict(plan.job.mesh.shape),
    'chip': dataclasses.asdict(plan.chip),
    'fits': plan.fits,
    'spare': plan.spare,
    'changes': [dataclasses.asdict(each) for each in plan.changes],
    'seconds': plan.seconds,
    'tokens': plan.tokens,
    'programs': found,
  }


def _verdict(plan: Plan) -> str:
  spare, program = plan.spare, plan.largest
  room = plan.chip.hbm / _GIB
  if plan.fits:
    return (
      f'**It fits**: the {program.name} needs {program.peak / _GIB:.2f} of '
      f'{room:.2f} GiB per chip, {spare / _GIB:.2f} GiB are left.'
    )
  lines = [
    f'**It does not fit**: the {program.name} needs '
    f'{program.peak / _GIB:.2f} GiB per chip, which has {room:.2f}, '
    f'{-spare / _GIB:.2f} GiB too much. Change (savings are estimates):',
    '',
  ]
  lines += [
    f'- `--config.{each.setting}`: saves about {each.saves / _GIB:.2f} GiB '
    f'({each.formula})'.replace('--config.--', '--')
    for each in plan.changes
  ]
  return '\n'.join(lines)


def _about(plan: Plan) -> str:
  job, c = plan.job, plan.job.config
  mesh = ', '.join(f'{name}={size}' for name, size in job.mesh.shape.items())
  lines = [
    f'- chips: {job.mesh.size} {plan.chip.name}, mesh {mesh}',
  ]
  for role, (model, params) in job.models.items():
    params = params['model'] if role == 'reward' else params
    count, size = kernels.size(params)
    name = getattr(c, role).path or f'a {role} of its own config'
    lines.append(
      f'- {role}: {name}, {count:,} parameters in {size / _GIB:.2f} GiB, '
      f'computes in {model.config.dtype}'
    )
  lines.append(
    f'- a step: {c.batch_size} prompts of {c.task.max_prompt_tokens} tokens, '
    f'responses of {c.task.max_response_tokens}; the student samples '
    f'{job.rows * job.settings.samples}'
  )
  if job.known:
    lines.append(
      '- the shapes of ' + ', '.join(job.known) + ' are those that kdjax '
      'carries: the hub was not reached'
    )
  return '\n'.join(lines)


def _memory(plan: Plan) -> str:
  names = list(plan.programs[0].held)
  rows = [
    (name, *(each.held[name] for each in plan.programs)) for name in names
  ]
  rows += [
    ('caches', *(each.caches for each in plan.programs)),
    ('temporaries', *(each.temporaries for each in plan.programs)),
    ('program', *(each.code for each in plan.programs)),
    ('**peak**', *(each.peak for each in plan.programs)),
  ]
  rows = [(row[0], *(_gib(value) for value in row[1:])) for row in rows]
  has = _gib(plan.chip.hbm)
  rows.append(('a chip has', *(has for _ in plan.programs)))
  return _table(['GiB', *(each.name for each in plan.programs)], rows)


def _work(plan: Plan) -> str:
  rows = []
  for each in plan.programs:
    cost = each.cost
    ratio = '—' if cost is None else f'{cost.flops / each.formula:.2f}'
    rows.append(
      (
        each.name,
        _number(cost and cost.flops / 1e12),
        _number(each.formula / 1e12),
        ratio,
        _number(cost and cost.bytes / 1e9),
        _number(cost and cost.wire_bytes / 1e9),
      )
    )
  header = ['', 'TFLOPs', 'by formula', 'ratio', 'GB of HBM', 'GB on the wire']
  return _table(header, rows)


def _collectives(plan: Plan) -> str:
  rows = [
    (
      each.name,
      kind,
      f'{each.cost.calls[kind]:,.0f}',
      f'{each.cost.wire[kind] / 1e6:,.1f}',
    )
    for each in plan.programs
    if each.cost
    for kind in counting.KINDS
    if each.cost.calls.get(kind)
  ]
  if not rows:
    return 'None.'
  return _table(['', 'kind', 'calls', 'MB on the wire'], rows)


def _time(plan: Plan) -> str:
  rows = []
  for each in plan.programs:
    limit = programs.roofline(each, plan.chip)
    if limit is None:
      rows.append((each.name, '—', '—', '—', '—', '—'))
      continue
    limits = programs.seconds(each.cost, plan.chip)
    parts = (f'{1e3 * limits[k]:.1f}' for k in ('compute', 'memory', 'network'))
    rate = f'{plan.tokens / limit[0]:,.0f}' if limit[0] else '—'
    rows.append((each.name, *parts, limit[1], rate))
  header = ['', 'compute ms', 'HBM ms', 'ICI ms', 'limit', 'tokens/s']
  table = _table(header, rows)
  if plan.seconds:
    table += (
      f'\n\nA step takes at least {1e3 * plan.seconds:.1f} ms, so it learns '
      f'from at most {plan.tokens / plan.seconds:,.0f} response tokens a '
      'second.'
    )
  return table


def _notes(plan: Plan) -> str:
  chip = plan.chip
  lines = [
    'How these were found:',
    '',
    '- Memory: parameters, optimizer and frozen models are the sums of the '
    "arrays' shards, the rest is what the compiler allocates (temporaries "
    'hold gradients, activations and logits); caches are counted from their '
    'shapes.',
    '- Work: counted in the compiled programs, loops as often as they run, '
    'responses as long as they may be; the formula stands in '
    'kdjax/plan/formula.py, its share of a chip is the total over all chips.',
    '- Time, an estimate: the largest of FLOPs / '
    f'{chip.flops / 1e12:.0f} TFLOP/s, bytes / '
    f'{chip.hbm_bandwidth / 1e9:.0f} GB/s of HBM, and bytes on the wire / '
    f'{chip.ici_bandwidth / 1e9:.0f} GB/s of ICI (all links of a chip at '
    'once). Nothing runs at its peak, and many small collectives wait for '
    'each other: a step takes longer.',
  ]
  for each in plan.programs:
    if each.compiled_for != chip.name:
      lines.append(
        f'- The {each.name} was compiled for {each.compiled_for}, whose chips '
        f'have more memory: that for {chip.name} refuses what does not fit.'
      )
    if each.cost and each.cost.unknown:
      loops = ', '.join(each.cost.unknown)
      lines.append(f'- Loops of unknown length, counted once: {loops}.')
  took = ', '.join(f'{p.name} {p.seconds:.0f} s' for p in plan.programs)
  lines.append(f'- Compiling took: {took}.')
  return '\n'.join(lines)


def _gib(value: float) -> str:
  return f'{value / _GIB:.2f}'


def _number(value: float | None) -> str:
  return '—' if value is None else f'{value:,.3g}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---'] + ['---:'] * (len(header) - 1), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
