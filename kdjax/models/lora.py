"""Students of which only low-rank factors train (LoRA)."""

import re
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models import api, kernels

# Attention's queries and values, as in the paper's experiments (section 4.2).
TARGETS = r'(^|/)(q|v)/kernel$'


def add_lora(
  params: api.Params,
  key: jax.Array,
  *,
  rank: int,
  alpha: float = 16.0,
  targets: str = TARGETS,
) -> api.Params:
  """Returns parameters with factors beside the matrices that `targets` finds.

  W = base + alpha / rank * A @ B

  A is normal with standard deviation 1 / sqrt(I) and B zero, so that the model
  starts as it was. The model itself doesn't change; that only the factors train
  is up to the optimizer (`trainable`). `save_pretrained` writes W.

  Args:
    params: of a model of `from_pretrained` or `from_config`, however stored.
    key: of the factors' first values.
    rank: R.
    alpha: its quotient by the rank scales the change, so that another rank
      wants no other learning rate.
    targets: a regular expression that is searched in paths of parameters, such
      as 'decoder/layers_0/attention/q/kernel'.

  Raises:
    ValueError: the rank isn't positive, or `targets` finds no matrix of a layer
      or something else too.

  References:
    Hu et al., 2021, https://arxiv.org/abs/2106.09685.
  """
  if rank < 1:
    raise ValueError(f'rank={rank}: expected a positive number')
  flat, structure = jax.tree_util.tree_flatten_with_path(
    params, is_leaf=kernels.is_kernel
  )
  paths = [
    jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in flat
  ]
  _check(targets, paths)
  leaves = []
  for i, (path, (_, kernel)) in enumerate(zip(paths, flat)):
    if re.search(targets, path):
      kernel = _factored(kernel, jax.random.fold_in(key, i), rank, alpha)
    leaves.append(kernel)
  return jax.tree.unflatten(structure, leaves)


def trainable(pattern: str | None) -> str:
  """Returns the pattern of factors in whose path `pattern` is found, too.

  >>> bool(re.search(trainable('decoder'), 'decoder/q/kernel/lora_a'))
  True
  >>> bool(re.search(trainable('decoder'), 'decoder/q/kernel/base'))
  False
  """
  return rf'^(?=.*/lora_[ab]$)(?=.*(?:{pattern or ""}))'


def _factored(
  kernel: Any, key: jax.Array, rank: int, alpha: float
) -> kernels.LoRA:
  shape = jax.tree.leaves(kernel)[0].shape
  *lead, inputs, outputs = shape
  a = jax.random.normal(key, (*lead, inputs, rank)) * inputs**-0.5
  b = jnp.zeros((*lead, rank, outputs))
  return kernels.LoRA(kernel, a, b, alpha / rank)


def _check(targets: str, paths: list[str]) -> None:
  found = [path for path in paths if re.search(targets, path)]
  layers = [path for path in paths if path.endswith('/kernel')]
  strange = sorted(set(found) - set(layers))
  if strange:
    raise ValueError(
      f'lora targets {targets!r} find {strange[:3]}, not a matrix of a '
      f'layer; those end in /kernel, such as {layers[:3]}'
    )
  if not found:
    raise ValueError(
      f'lora targets {targets!r} match no path; the matrices of layers '
      f'are such as {layers[:7]}'
    )
