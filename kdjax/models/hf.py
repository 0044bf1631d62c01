"""Hugging Face directories, read and written: config.json and safetensors.

A family's `TABLE` pairs our parameter paths with Hugging Face's tensor names
and is read in both directions. Nothing here unpickles: `.bin` files go through
torch's `weights_only` loader.
"""

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy


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


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object; an error names the file."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{path} is missing; a model directory holds config.json and '
      'model.safetensors'
    ) from None
  except ValueError as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from None


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError, KeyError) as error:
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is not a readable safetensors '
      f'file: {error}. Fetch or write it again.'
    ) from None


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch  # noqa: PLC0415
  except ImportError:
    raise ImportError(
      f'{path} is a torch file, and torch is not installed. Install torch '
      '(kdjax then reads it with weights_only=True), or save the model as '
      'safetensors.'
    ) from None
  try:
    tensors = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises many kinds
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is corrupt or holds more than '
      f'tensors, and kdjax unpickles nothing else ({type(error).__name__}). '
      'Fetch it again, or have its owner save the model as safetensors.'
    ) from None
  return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def read_tensors(directory: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads every tensor of a model directory, sharded or not.

  Safetensors are preferred; `.bin` files are read where torch is installed,
  with its `weights_only` loader.

  Raises:
    FileNotFoundError: if there are no weights, or a shard is missing.
    ValueError: if a file is corrupt.
    ImportError: for `.bin` files without torch.
  """
  for stem, read in (
    ('model.safetensors', _read_safetensors),
    ('pytorch_model.bin', _read_torch),
  ):
    index = directory / f'{stem}.index.json'
    if index.exists():
      files = sorted(set(read_json(index)['weight_map'].values()))
    elif (directory / stem).exists():
      files = [stem]
    else:
      continue
    missing = [f for f in files if not (directory / f).exists()]
    if missing:
      raise FileNotFoundError(f'{directory} lacks the shards {missing}')
    tensors = {}
    for file in files:
      tensors.update(read(directory / file))
    return tensors
  raise FileNotFoundError(
    f'{directory} holds neither model.safetensors nor pytorch_model.bin'
  )


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
    ValueError: naming every missing, unused and misshapen tensor at once.
  """
  tensors = {k.removeprefix(family.PREFIX): v for k, v in tensors.items()}
  params, problems, used = {}, [], set()
  for path, (entry, name) in _names(family, shapes).items():
    name = name.removeprefix(family.PREFIX)
    used.add(name)
    if name not in tensors:
      problems.append(f'missing: {name} (for {path})')
      continue
    param = entry.load(tensors[name])
    if param.shape != tuple(shapes[path]):
      problems.append(
        f'shape: {name} gives {param.shape}, {path} needs {tuple(shapes[path])}'
      )
    params[path] = param
  unused = sorted(
    name
    for name in set(tensors) - used
    if not any(re.fullmatch(pattern, name) for pattern in family.IGNORED)
  )
  problems += [f'unused: {name} {tensors[name].shape}' for name in unused]
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
