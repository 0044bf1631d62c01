"""Whether a run's parameters fit the devices, before any of them is loaded."""

import os
from collections.abc import Mapping

import jax

GIB = 2**30

# Arrays that an update holds beside the parameters that train, of their size:
# the gradients, and the optimizer's moments (Adafactor's are rows and columns).
_EXTRA = {'adafactor': 1, 'adamw': 3, 'sgd': 2}


def check(
  counts: Mapping[str, int],
  stored: int,
  training: int,
  optimizer: str,
  mesh: jax.sharding.Mesh,
) -> None:
  """Raises if parameters, float32 gradients and moments exceed a device.

  A lower bound: activations and logits come on top.

  Args:
    counts: number of parameters of each model, by its role.
    stored: bytes of all of them.
    training: number of those that train.
    optimizer: its name.
    mesh: over which 'fsdp' and 'tensor' split parameters.

  Raises:
    ValueError: naming the sizes and the ways out.
  """
  parts = mesh.shape['fsdp'] * mesh.shape['tensor']
  needed = (stored + 4 * _EXTRA[optimizer] * training) / parts
  there = _capacity(mesh)
  if needed > there:
    named = ' and '.join(
      f'{count:,} {role}' for role, count in counts.items() if count
    )
    raise ValueError(
      f'the models need at least {needed / GIB:.1f} GiB per device ({named} '
      f'parameters, of which {training:,} train, over {parts} devices), but '
      f'one has {there / GIB:.1f} GiB. Choose smaller models, split them by '
      "mesh.fsdp, store the teacher in less (teacher.weights='bfloat16' or "
      "'int8'), train only factors (student.lora.rank=8), or run the small "
      'embedded ones: --config=configs/gkd_xsum.py:embedded'
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
