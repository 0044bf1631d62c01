"""Models: their configs, how they lie in memory, and who responds."""

from kdjax import partitioning
from kdjax.checks import shapes
from kdjax.config import ROLES, Config, Model


def given(model: Model) -> bool:
  """Returns whether a config names a model."""
  return bool(model.path or model.config)


def problems(c: Config, mode: str) -> list[str]:
  """Returns what is wrong with the models."""
  found = []
  for role in ROLES:
    found += shapes.problems(c, role)
    try:
      partitioning.read_rules(getattr(c, role).sharding)
    except ValueError as error:
      found.append(f'{role}.{error}')
  found += _mesh_problems(c, mode) + _storage_problems(c, mode)
  if mode == 'generate' and c.generate.draft_tokens:
    if c.generate.model != 'teacher' or c.generate.beams > 1:
      found.append(
        f'generate.draft_tokens={c.generate.draft_tokens}: the student drafts '
        "for a teacher that samples; set generate.model='teacher' and "
        'generate.beams=1'
      )
    elif not given(c.student):
      found.append(
        f'generate.draft_tokens={c.generate.draft_tokens}: the student drafts, '
        'but neither student.path nor student.config is given'
      )
  if mode == 'generate' and not given(getattr(c, c.generate.model)):
    found.append(
      f'generate.model={c.generate.model!r}, but neither '
      f'{c.generate.model}.path nor {c.generate.model}.config is given'
    )
  return found


def _mesh_problems(c: Config, mode: str) -> list[str]:
  """Rows that the mesh can't split."""
  rows = {
    'batch_size': c.batch_size if mode == 'train' else 0,
    'eval.batch_size': 0 if mode == 'generate' else c.eval.batch_size,
    'generate.batch_size': c.generate.batch_size if mode == 'generate' else 0,
  }
  # What the devices leave to an axis of -1 isn't known yet.
  parts = max(c.mesh.data, 1) * max(c.mesh.fsdp, 1)
  return [
    f'{name}={size} does not divide over mesh.data times mesh.fsdp, {parts}'
    for name, size in rows.items()
    if size % parts
  ]


def _storage_problems(c: Config, mode: str) -> list[str]:
  """What can't train as it is stored, or wouldn't."""
  found, student = [], c.student
  rank, weights = student.lora.rank, student.weights
  if weights != 'float32' and not rank and mode == 'train':
    found.append(
      f'student.weights={weights!r}: what trains is float32. Leave it out, or '
      'train factors beside it: student.lora.rank=8'
    )
  scaled = c.optimizer.multiply_by_parameter_scale
  if rank and c.optimizer.name == 'adafactor' and scaled and mode == 'train':
    found.append(
      f'student.lora.rank={rank}: factors that start at zero hardly move in '
      "steps of their own size; set optimizer.name='adamw', or "
      'optimizer.multiply_by_parameter_scale=False'
    )
  for role in ROLES:
    model = getattr(c, role)
    if role != 'student' and model.lora.rank:
      found.append(
        f'{role}.lora.rank={model.lora.rank}: only the student trains; leave '
        'it out'
      )
    if model.remat_policy != 'nothing' and not model.remat:
      found.append(
        f'{role}.remat_policy={model.remat_policy!r} does nothing without '
        f'{role}.remat=True'
      )
  return found
