"""Whether a run's parameters fit the devices, before any of them is loaded."""

import os

import jax

GIB = 2**30

# Arrays of the student's size that an update holds beside its parameters: the
# gradients, and the optimizer's moments (Adafactor's are rows and columns).
_EXTRA = {'adafactor': 1, 'adamw': 3, 'sgd': 2}


def check(
  student: int, teacher: int, optimizer: str, mesh: jax.sharding.Mesh
) -> None:
  """Raises if float32 parameters, gradients and moments exceed a device.

  A lower bound: activations and logits come on top.

  Args:
    student: number of the student's parameters.
    teacher: number of the teacher's parameters.
    optimizer: its name.
    mesh: over which 'fsdp' and 'tensor' split parameters.

  Raises:
    ValueError: naming the sizes and the ways out.
  """
  parts = mesh.shape['fsdp'] * mesh.shape['tensor']
  needed = 4 * (student * (1 + _EXTRA[optimizer]) + teacher) / parts
  there = _capacity(mesh)
  if needed > there:
    raise ValueError(
      f'the models need at least {needed / GIB:.1f} GiB a device ({student:,} '
      f'student and {teacher:,} teacher parameters over {parts} devices), '
      f'but one has {there / GIB:.1f} GiB. Choose smaller models, split them '
      'by mesh.fsdp, or run the small embedded ones: '
      '--config=configs/gkd_xsum.py:embedded'
    )


def _capacity(mesh: jax.sharding.Mesh) -> float:
  """Bytes of one device; simulated CPU devices share the machine's."""
  device = mesh.local_devices[0]
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  if not hasattr(os, 'sysconf'):
    return float('inf')
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total / len(mesh.local_devices)
