"""Which settings to change where a step doesn't fit, and what that saves.

All of it estimates: bytes scale as what they are made of does.
"""

import dataclasses
import math
from collections.abc import Callable

import jax

from kdjax import models
from kdjax.losses import chunks
from kdjax.models import kernels
from kdjax.plan import chips, formula, programs
from kdjax.plan.job import Job


@dataclasses.dataclass(frozen=True)
class Change:
  """A setting, the bytes a chip that it saves, and how that was estimated."""

  setting: str
  saves: float
  formula: str


# A setting, the program as it would be, and how that is estimated.
_Found = tuple[str, programs.Program, str] | None


def changes(
  job: Job, chip: chips.Chip, program: programs.Program
) -> list[Change]:
  """Returns one change after which a program fits, or as many as it takes.

  Those that cost the least come first, and each saves of what those before it
  leave.

  Args:
    job: what was compiled.
    chip: what it shall fit.
    program: the one that needs the most memory.
  """
  if program.peak <= chip.hbm:
    return []
  for make in _CHANGES:
    found = make(job, program)
    if found and found[1].peak <= chip.hbm:
      return [_change(program, *found)]
  kept, now = [], program
  for make in _CHANGES:
    if now.peak > chip.hbm and (found := make(job, now)):
      kept.append(_change(now, *found))
      now = found[1]
  if now.peak > chip.hbm:
    kept.append(_more_chips(chip, job, now))
  return kept


def _change(
  program: programs.Program, setting: str, after: programs.Program, how: str
) -> Change:
  return Change(setting, program.peak - after.peak, how)


def _fsdp(job: Job, program: programs.Program) -> _Found:
  """Splits over all that now holds copies."""
  mesh = job.mesh.shape
  copies, wanted = mesh['data'], mesh['fsdp'] * mesh['data']
  if copies == 1:
    return None
  held = {
    name: size if name == 'batch' else size / copies
    for name, size in program.held.items()
  }
  after = dataclasses.replace(program, held=held)
  how = f'what is held x {mesh["fsdp"]} / {wanted}'
  return f'mesh.fsdp={wanted}', after, how


def _weights(job: Job, program: programs.Program) -> _Found:
  """Stores the teacher in half, or in a quarter."""
  c = job.config.teacher
  smaller = {'float32': 'bfloat16', 'bfloat16': 'int8'}.get(c.weights)
  if 'teacher' not in program.held or not smaller or not c.path:
    return None
  sizes = [
    kernels.size(models.abstract(c.path, weights=kind)[1])[1]
    for kind in (smaller, c.weights)
  ]
  share = sizes[0] / sizes[1]
  held = {**program.held, 'teacher': program.held['teacher'] * share}
  after = dataclasses.replace(program, held=held)
  return f"teacher.weights='{smaller}'", after, f'teacher x {share:.2f}'


def _remat(job: Job, program: programs.Program) -> _Found:
  """Keeps one array a layer in place of all that it computes."""
  if program.name != 'update' or job.config.student.remat:
    return None
  shape = formula.shape(job.settings.student)
  # What a layer keeps a token: its products' inputs and results.
  each = 4 * shape.width + 2 * shape.inner + 2 * shape.keys
  each += (1 + shape.gated) * shape.mlp
  share = shape.width / (each + shape.width)
  return 'student.remat=True', _scaled(program, share), _scale(share)


def _micro_batch(job: Job, program: programs.Program) -> _Found:
  """Learns from fewer rows at a time."""
  c, parts = job.config, job.mesh.shape['data'] * job.mesh.shape['fsdp']
  now = c.micro_batch_size or c.batch_size
  sizes = [n for n in range(parts, now, parts) if c.batch_size % n == 0]
  if program.name != 'update' or not sizes:
    return None
  size = min(sizes, key=lambda n: abs(math.log(4 * n / now)))
  after = _scaled(program, size / now)
  return f'micro_batch_size={size}', after, _scale(size / now)


def _chunk(job: Job, program: programs.Program) -> _Found:
  """Holds the logits of fewer tokens."""
  size, now = 512, job.config.chunk_size or _chunk_size(job)
  if program.name != 'update' or now <= size:
    return None
  saved = 4 * 4 * (now - size) * job.settings.num_tokens
  rest = max(0.0, program.temporaries - saved)
  after = dataclasses.replace(program, temporaries=rest)
  how = f'four arrays of logits, 4 x 4 x ({now} - {size}) x V, less'
  return f'chunk_size={size}', after, how


def _chunk_size(job: Job) -> int:
  """Returns how many tokens' logits a chip holds by itself."""
  c, mesh = job.config, job.mesh.shape
  rows = (c.micro_batch_size or c.batch_size) * job.settings.samples
  tokens = (rows // (mesh['data'] * mesh['fsdp']), c.task.max_response_tokens)
  with jax.set_mesh(job.mesh):
    return chunks.make_plan(tokens, job.settings.num_tokens).size


def _batch(job: Job, program: programs.Program) -> _Found:
  """Samples fewer rows at a time."""
  c, parts = job.config, job.mesh.shape['data'] * job.mesh.shape['fsdp']
  size = c.batch_size // 2 // parts * parts
  if program.name != 'rollout' or not size:
    return None
  share = size / c.batch_size
  after = dataclasses.replace(
    program,
    caches=program.caches * share,
    temporaries=program.temporaries * share,
  )
  return f'batch_size={size}', after, f'caches and temporaries x {share:.2f}'


_CHANGES: tuple[Callable[[Job, programs.Program], _Found], ...] = (
  _fsdp,
  _weights,
  _remat,
  _micro_batch,
  _batch,
  _chunk,
)


def _more_chips(
  chip: chips.Chip, job: Job, program: programs.Program
) -> Change:
  """Splits over the smallest slice that holds it, or the largest."""
  split, size = sum(program.held.values()), job.mesh.size
  larger = [s for s in chip.shapes if chips.chips_of(s) > size]
  for shape in larger:
    count = chips.chips_of(shape)
    saved = split * (1 - size / count)
    if program.peak - saved <= chip.hbm or shape == larger[-1]:
      setting = f'--topology={chip.name}:{shape} and mesh.fsdp={count}'
      return Change(setting, saved, f'what is held x {size} / {count}')
  return Change('smaller models', 0.0, 'there is no larger slice')


def _scaled(program: programs.Program, share: float) -> programs.Program:
  """Scales what grows with rows: temporaries except float32 gradients."""
  gradients = min(program.held['parameters'], program.temporaries)
  rest = gradients + (program.temporaries - gradients) * share
  return dataclasses.replace(program, temporaries=rest)


def _scale(share: float) -> str:
  return f'temporaries without gradients x {share:.2f}'
