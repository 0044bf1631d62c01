"""What a model's directory holds, read as a stranger's: nothing is trusted.

A file is read only where it lies in the directory, and no larger than it is. No
code in it runs: `.bin` files go through torch's `weights_only` loader.
"""

import pathlib
import zipfile
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from kdjax import hub

_AGAIN = 'Fetch or write it again.'
_CHUNK = 2**18


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """Returns config.json with the ids of generation_config.json over it.

  Raises:
    FileNotFoundError: there is no config.json.
    ValueError: one of the files lies elsewhere, or isn't a JSON object.
  """
  config = hub.read_json(directory, 'config.json')
  name = 'generation_config.json'
  there = hub.member(directory, name).exists()
  settings = hub.read_json(directory, name) if there else {}
  wanted = (
    'bos_token_id',
    'eos_token_id',
    'pad_token_id',
    'decoder_start_token_id',
  )
  stated = {k: settings[k] for k in wanted if settings.get(k) is not None}
  return {**config, **stated}


def read_tensors(directory: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads every tensor of a model directory, sharded or not.

  Safetensors are preferred; `.bin` files are read where torch is installed.

  Raises:
    FileNotFoundError: if there are no weights, or a shard is missing.
    ValueError: if a file is corrupt or lies elsewhere.
    ImportError: for `.bin` files without torch.
  """
  for stem, read in (
    ('model.safetensors', read_safetensors),
    ('pytorch_model.bin', _read_torch),
  ):
    index = f'{stem}.index.json'
    if hub.member(directory, index).exists():
      files = _shards(directory, index)
    elif hub.member(directory, stem).exists():
      files = [stem]
    else:
      continue
    paths = [hub.member(directory, file) for file in files]
    if missing := [path.name for path in paths if not path.exists()]:
      raise FileNotFoundError(f'{directory} lacks the shards {missing}')
    tensors = {}
    for path in paths:
      found = read(path)
      if twice := sorted(set(tensors) & set(found)):
        raise ValueError(f'{path} holds what another shard does: {twice[:5]}')
      tensors.update(found)
    return tensors
  raise FileNotFoundError(
    f'{directory} holds neither model.safetensors nor pytorch_model.bin'
  )


def _shards(directory: pathlib.Path, index: str) -> list[str]:
  """Returns the names of the shards that an index lists."""
  files = hub.read_json(directory, index).get('weight_map')
  names = list(files.values()) if isinstance(files, dict) else []
  if not names or not all(isinstance(name, str) for name in names):
    raise ValueError(
      f'{directory / index} lists no shards: its weight_map should be an '
      'object of file names by tensor'
    )
  return sorted(set(names))


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a safetensors file.

  Its header is held against the size of the file before anything is allocated.

  Raises:
    ValueError: it is corrupt.
  """
  try:
    return safetensors.numpy.load_file(path)
  except Exception as error:  # Of types and shapes, too, which NumPy refuses.
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is not a readable safetensors '
      f'file: {_line(error)}. {_AGAIN}'
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
    _check_archive(path)
    tensors = torch.load(path, map_location='cpu', weights_only=True)
    return {
      name: _from_torch(name, tensor, path.stat().st_size)
      for name, tensor in tensors.items()
    }
  except Exception as error:  # torch raises many kinds
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is corrupt or holds more than '
      f'tensors, and kdjax unpickles nothing else ({type(error).__name__}: '
      f'{_line(error)}). Fetch it again, or have its owner save the model as '
      'safetensors.'
    ) from None


def _check_archive(path: pathlib.Path) -> None:
  """Raises where an archive would unpack to more than it is.

  Torch writes tensors as they are; what is compressed came from elsewhere.
  """
  if not zipfile.is_zipfile(path):
    return
  with zipfile.ZipFile(path) as archive:
    unpacked = sum(entry.file_size for entry in archive.infolist())
  if unpacked > path.stat().st_size:
    raise ValueError(f'it unpacks to {unpacked} bytes')


def _from_torch(name: str, tensor: Any, room: int) -> np.ndarray:
  """Returns a tensor as an array; raises where it isn't one in the file."""
  # A view of few numbers as many takes no room in the file, but here.
  if tensor.numel() * tensor.element_size() > room:
    raise ValueError(f'{name} has {tensor.numel()} values, more than the file')
  return tensor.detach().float().numpy()


def _line(error: BaseException) -> str:
  """Returns the first line of what an error says."""
  return (str(error).strip().splitlines() or [''])[0][:200]


def unsound(array: np.ndarray) -> str:
  """Returns what is wrong with the values of a weight; '' if nothing.

  Read in chunks that stay in the processor's cache: about as fast as the file
  is read, and no second copy of the tensor.

  >>> unsound(np.array([1, np.nan, np.inf, -np.inf], np.float32))
  '1 NaN and 2 infinite of 4 values'
  """
  if not _is_floating(array):
    return f'{array.dtype} values, expected floating point'
  nan = infinite = 0
  flat = array.reshape(-1)
  for start in range(0, flat.size, _CHUNK):
    chunk = flat[start : start + _CHUNK]
    finite = _finite(chunk)
    if not finite.all():
      found = int(np.isnan(chunk).sum())
      nan += found
      infinite += int((~finite).sum()) - found
  if not nan and not infinite:
    return ''
  return f'{nan} NaN and {infinite} infinite of {flat.size} values'


def _finite(values: np.ndarray) -> np.ndarray:
  """Returns where values are finite, in float32."""
  if values.dtype == np.float16:
    # By its bits: eight times as fast as NumPy converts it.
    return (values.view(np.uint16) & 0x7C00) != 0x7C00
  with np.errstate(over='ignore'):
    return np.isfinite(values.astype(np.float32, copy=False))


def _is_floating(array: np.ndarray) -> bool:
  # bfloat16 and float8 aren't subtypes of NumPy's own.
  name = array.dtype.name
  return np.issubdtype(array.dtype, np.floating) or name.startswith(
    ('bfloat', 'float')
  )
