"""A model's directory is read as a stranger's."""

import json
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from kdjax.models import directories

TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b.bias': np.ones(4, np.float32),
}


def same(a, b):
  assert sorted(a) == sorted(b)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def write_shards(directory, stem, save):
  names = [f'part-{i}-{stem}' for i in range(2)]
  for name, key in zip(names, TENSORS):
    save({key: TENSORS[key]}, directory / name)
  index = {'weight_map': dict(zip(TENSORS, names))}
  (directory / f'{stem}.index.json').write_text(json.dumps(index))
  return names


def save_torch(tensors, path):
  torch.save({k: torch.tensor(v) for k, v in tensors.items()}, path)


FORMATS = {
  'model.safetensors': safetensors.numpy.save_file,
  'pytorch_model.bin': save_torch,
}


@pytest.mark.parametrize('stem', FORMATS)
def test_single_and_sharded_files_are_read(tmp_path, stem):
  single, sharded = tmp_path / 'single', tmp_path / 'sharded'
  single.mkdir(), sharded.mkdir()
  FORMATS[stem](TENSORS, single / stem)
  same(directories.read_tensors(single), TENSORS)
  names = write_shards(sharded, stem, FORMATS[stem])
  same(directories.read_tensors(sharded), TENSORS)
  (sharded / names[1]).unlink()
  with pytest.raises(FileNotFoundError, match=f'lacks .*{names[1]}'):
    directories.read_tensors(sharded)


def test_safetensors_come_first(tmp_path):
  save_torch({'other': np.zeros(2)}, tmp_path / 'pytorch_model.bin')
  safetensors.numpy.save_file(TENSORS, tmp_path / 'model.safetensors')
  same(directories.read_tensors(tmp_path), TENSORS)


def test_bfloat16_files_are_read(tmp_path):
  halves = {k: torch.tensor(v).bfloat16() for k, v in TENSORS.items()}
  safetensors.torch.save_file(halves, tmp_path / 'model.safetensors')
  tensors = directories.read_tensors(tmp_path)
  assert tensors['b.bias'].dtype == ml_dtypes.bfloat16
  same({k: v.astype(np.float32) for k, v in tensors.items()}, TENSORS)
  (tmp_path / 'model.safetensors').unlink()
  torch.save(halves, tmp_path / 'pytorch_model.bin')
  same(directories.read_tensors(tmp_path), TENSORS)


def test_no_weights(tmp_path):
  with pytest.raises(FileNotFoundError, match='neither model.safetensors nor'):
    directories.read_tensors(tmp_path)


@pytest.mark.parametrize('stem', FORMATS)
@pytest.mark.parametrize('size', [0, 5, 60, -3])
def test_corrupt_files_are_named(tmp_path, stem, size):
  FORMATS[stem](TENSORS, tmp_path / stem)
  whole = (tmp_path / stem).read_bytes()
  (tmp_path / stem).write_bytes(whole[:size])
  with pytest.raises(ValueError, match=f'{re.escape(stem)}.* again'):
    directories.read_tensors(tmp_path)


class Trap:
  """Unpickled, it would write a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def test_nothing_but_tensors_is_unpickled(tmp_path):
  sprung = tmp_path / 'sprung'
  torch.save({'a': Trap(sprung)}, tmp_path / 'pytorch_model.bin')
  with pytest.raises(ValueError, match='unpickles nothing else'):
    directories.read_tensors(tmp_path)
  (tmp_path / 'pytorch_model.bin').write_bytes(
    pickle.dumps(Trap(sprung), protocol=2)
  )
  with pytest.raises(ValueError, match='safetensors'):
    directories.read_tensors(tmp_path)
  assert not sprung.exists()


def test_bin_files_without_torch_name_the_way_out(tmp_path, monkeypatch):
  save_torch(TENSORS, tmp_path / 'pytorch_model.bin')
  monkeypatch.setitem(__import__('sys').modules, 'torch', None)
  with pytest.raises(ImportError, match='Install torch .* or save'):
    directories.read_tensors(tmp_path)
