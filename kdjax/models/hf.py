"""Hugging Face's tensors and our parameters: each made from the other.

A family's `TABLE` pairs our parameter paths with Hugging Face's tensor names
and is read in both directions.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from kdjax.models import directories


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of a family's table.

  `*` stands for a layer's number, on both sides. A Hugging Face tensor that
  holds several of our parameters side by side (a fused query-key-value matrix)
  has one entry a part.

  Attributes:
    ours: path of our parameter, such as `decoder/layers_*/mlp/wo/kernel`.
    theirs: name of the tensor, such as `decoder.block.*.layer.2.wo.weight`.
    transpose: True where the two differ by a matrix transpose (torch's Linear
      stores [out, in]).
    part: which part of the tensor's last axis (after the transpose) is ours.
    parts: the sizes of all parts, in proportion.
  """

  ours: str
  theirs: str
  transpose: bool = False
  part: int = 0
  parts: tuple[int, ...] = (1,)

  def match(self, path: str) -> str | None:
    """Returns the tensor's name for one of our paths, or None."""
    pattern = re.escape(self.ours).replace(r'\*', r'(\d+)')
    found = re.fullmatch(pattern, path)
    if not found:
      return None
    name = self.theirs
    for number in found.groups():
      name = name.replace('*', number, 1)
    return name

  def load(self, tensor: np.ndarray) -> np.ndarray:
    """Returns our parameter, cut from their tensor."""
    tensor = tensor.T if self.transpose else tensor
    if len(self.parts) == 1:
      return tensor
    if not tensor.ndim or tensor.shape[-1] % sum(self.parts):
      return tensor  # its shape will be found to be wrong
    unit = tensor.shape[-1] // sum(self.parts)
    bounds = np.cumsum([0, *self.parts]) * unit
    return tensor[..., bounds[self.part] : bounds[self.part + 1]]

  def save(self, pieces: list[np.ndarray]) -> np.ndarray:
    """Returns their tensor, joined from the parts in order."""
    tensor = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, -1)
    return np.ascontiguousarray(tensor.T if self.transpose else tensor)


def start_id(config: Mapping[str, Any]) -> int:
  """Returns the id that begins a text: bos_token_id, else eos_token_id.

  0 where the vocabulary holds neither.
  """
  for name in ('bos_token_id', 'eos_token_id'):
    found = config.get(name)
    first = found[0] if isinstance(found, list | tuple) else found
    if first is not None and 0 <= first < config['vocab_size']:
      return int(first)
  return 0


def _names(
  family: ModuleType, paths: Iterable[str]
) -> dict[str, tuple[Entry, str]]:
  """Returns the table's entry and the tensor's name for each of our paths."""
  found = {}
  for path in paths:
    for entry in family.TABLE:
      name = entry.match(path)
      if name is not None:
        found[path] = entry, name
        break
    else:
      raise LookupError(f'no table entry of {family.__name__} matches {path}')
  return found


def from_tensors(
  family: ModuleType,
  shapes: Mapping[str, tuple[int, ...]],
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Returns our parameters by path, cut from Hugging Face tensors.

  Args:
    family: a module of `families`.
    shapes: the shape of each of our parameters, by path.
    tensors: by Hugging Face name.

  Raises:
    ValueError: naming every missing, unused and misshapen tensor at once, and
      every one that isn't of finite floating-point numbers.
  """
  params, problems, used = {}, [], set()
  names = {k.removeprefix(family.PREFIX): k for k in tensors}
  if len(names) < len(tensors):
    twice = sorted(set(tensors) - set(names.values()))
    problems += [f'also with {family.PREFIX!r} before it: {x}' for x in twice]
  tensors = {name: tensors[theirs] for name, theirs in names.items()}
  for path, (entry, name) in _names(family, shapes).items():
    full, name = name, name.removeprefix(family.PREFIX)
    used.add(name)
    if name not in tensors:
      problems.append(f'missing: {full} (for {path})')
      continue
    param = entry.load(tensors[name])
    if param.shape != tuple(shapes[path]):
      problems.append(
        f'shape: {names[name]} gives {param.shape}, {path} needs '
        f'{tuple(shapes[path])}'
      )
    params[path] = param
  # What nothing reads may hold anything, such as a mask's minus infinity.
  for name in sorted(used & set(tensors)):
    if wrong := directories.unsound(tensors[name]):
      problems.append(f'values: {names[name]} has {wrong}')
  unused = sorted(
    name
    for name in set(tensors) - used
    if not any(re.fullmatch(pattern, name) for pattern in family.IGNORED)
  )
  problems += [f'unused: {names[x]} {tensors[x].shape}' for x in unused]
  if problems:
    raise ValueError(
      f'the weights do not fit the {family.__name__.split(".")[-1]} config:'
      '\n  ' + '\n  '.join(sorted(set(problems)))
    )
  return params


def to_tensors(
  family: ModuleType, params: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns Hugging Face tensors by name: `from_tensors` undone."""
  pieces = collections.defaultdict(list)
  for path, (entry, name) in _names(family, params).items():
    pieces[name].append((entry.part, entry, np.asarray(params[path])))
  tensors = {}
  for name, parts in pieces.items():
    parts.sort(key=lambda part: part[0])
    tensors[name] = parts[0][1].save([array for _, _, array in parts])
  return tensors
