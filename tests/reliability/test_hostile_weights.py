"""Promises 11 and 7: weights are finite numbers, whatever file they are in."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from kdjax import models, roles
from kdjax.models import directories
from tests.reliability.hostile import JSON, outcome

PROMISE = 11


def header(entries, body=b'', length=None):
  """Returns the bytes of a safetensors file."""
  text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
  return (
    struct.pack('<Q', len(text) if length is None else length) + text + body
  )


def entry(dtype='F32', shape=(2,), offsets=(0, 8)):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


HEADERS = {
  'longer than the file': header(b'{}', length=2**40),
  'longest': header(b'{}', length=2**64 - 1),
  'negative shape': header({'a': entry(shape=[-2])}, bytes(8)),
  'huge shape': header({'a': entry(shape=[2**62, 2**62])}, bytes(8)),
  'huge and empty': header({'a': entry(shape=[2**62, 0], offsets=(0, 0))}),
  'beyond the file': header({'a': entry(offsets=(0, 2**40))}, bytes(8)),
  'backwards': header({'a': entry(offsets=(8, 0))}, bytes(8)),
  'negative offsets': header({'a': entry(offsets=(-8, 0))}, bytes(8)),
  'overlap': header({'a': entry(), 'b': entry(offsets=(4, 12))}, bytes(12)),
  'unknown dtype': header({'a': entry('F99')}, bytes(8)),
  'odd dtype': header({'a': entry('F8_E4M3', (8,))}, bytes(8)),
  'no JSON': header(b'{"a": ', bytes(8)),
  'no UTF-8': header(b'{"\xff": 1}', bytes(8)),
  'no object': header(b'[1, 2]'),
  'deep': header(b'{"a": ' + b'[' * 50_000),
  'twice': header(
    f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode(),
    bytes(8),
  ),
}


@pytest.mark.parametrize('name', HEADERS)
def test_safetensors_headers(name, folder, tried):
  (folder / 'model.safetensors').write_bytes(HEADERS[name])
  with pytest.raises(ValueError, match='model'):
    models.from_pretrained(folder)
  tried(PROMISE, 'a hostile safetensors header', 1)


def test_safetensors_of_any_bytes(folder, fuzz):
  path = folder / 'model.safetensors'
  whole = path.read_bytes()

  def test(cuts, drawn, size):
    content = bytearray(whole[:size] or b'\0')
    for position, byte in cuts:
      content[position % len(content)] = byte
    path.write_bytes(drawn if drawn is not None else bytes(content))
    found = outcome(directories.read_safetensors, path)
    if found is not None:
      assert sum(x.nbytes for x in found.values()) <= path.stat().st_size
    outcome(models.from_pretrained, folder)

  entries = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
      st.builds(
        entry,
        st.sampled_from(['F32', 'F16', 'BF16', 'I8', 'BOOL', 'F4', 'C64', '']),
        st.lists(st.integers(-1, 2**63), max_size=3),
        st.lists(st.integers(-1, 64), min_size=2, max_size=2),
      ),
      JSON,
    ),
    max_size=3,
  )
  fuzz(
    PROMISE,
    'a safetensors file with bytes changed, cut short, or of any header',
    test,
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=5),
    st.one_of(
      st.none(),
      st.binary(max_size=64),
      st.builds(header, entries, st.binary(max_size=64)),
    ),
    st.sampled_from([len(whole), len(whole), len(whole) - 1, 100, 9, 0]),
    quick=60,
    often=10_000,
  )


class Trap:
  """Unpickled, it would write a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_no_pickle_is_run(folder, tmp_path, tried):
  torch = pytest.importorskip('torch')

  (folder / 'model.safetensors').unlink()
  path, sprung = folder / 'pytorch_model.bin', tmp_path / 'sprung'
  trap = Trap(sprung)
  contents = [pickle.dumps(trap, protocol=p) for p in range(6)]
  for content in (trap, {'a': trap}, {'a': [torch.zeros(2), trap]}):
    for zipped in (True, False):
      torch.save(content, path, _use_new_zipfile_serialization=zipped)
      contents.append(path.read_bytes())
  for content in contents:
    path.write_bytes(content)
    with pytest.raises(ValueError, match='unpickles nothing else'):
      models.from_pretrained(folder)
    tried(PROMISE, 'a pickle that would run code', 1)
  assert not sprung.exists()
  # The traps are live: unpickled, one does what it would.
  pickle.loads(contents[0])  # noqa: S301
  assert sprung.exists()


def test_torch_files_take_no_more_room_than_they_have(folder, tried):
  torch = pytest.importorskip('torch')

  (folder / 'model.safetensors').unlink()
  path = folder / 'pytorch_model.bin'
  for value in (
    torch.zeros(1, dtype=torch.float16).expand(10**12),
    torch.zeros(1).expand(10**6, 10**6),
    'text',
    {'nested': torch.zeros(2)},
    torch.zeros(2, dtype=torch.complex64).to_sparse(),
  ):
    torch.save({'a': value}, path)
    with pytest.raises(ValueError, match='pytorch_model.bin'):
      models.from_pretrained(folder)
  torch.save({'a': torch.zeros(10**6)}, path)
  with zipfile.ZipFile(path) as source:
    parts = {name: source.read(name) for name in source.namelist()}
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as bomb:
    for name, content in parts.items():
      bomb.writestr(name, content)
  assert path.stat().st_size < 10**5
  with pytest.raises(ValueError, match='unpacks to'):
    models.from_pretrained(folder)
  tried(PROMISE, 'a torch file that would take more room than it has', 6)


def test_weights_in_torch_files_that_train(folder):
  torch = pytest.importorskip('torch')

  weights = directories.read_tensors(folder)
  (folder / 'model.safetensors').unlink()
  torch.save(
    {k: torch.nn.Parameter(torch.tensor(v)) for k, v in weights.items()},
    folder / 'pytorch_model.bin',
  )
  assert models.from_pretrained(folder)


@pytest.mark.parametrize(
  'value, tells',
  [
    (np.float32(np.nan), '2 NaN and 0 infinite'),
    (np.float32(-np.inf), '0 NaN and 2 infinite'),
  ],
)
@pytest.mark.parametrize('weights', ['float32', 'bfloat16', 'int8'])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16', 'float64'])
def test_weights_that_are_not_finite(
  value, tells, weights, dtype, folder, tried
):
  import ml_dtypes
  import safetensors.numpy

  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
  tensors = {k: v.astype(kind) for k, v in tensors.items()}
  name = 'model.layers.0.mlp.up_proj.weight'
  tensors[name].reshape(-1)[[1, 5]] = value
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError) as error:
    models.from_pretrained(folder, weights=weights)
  for part in (str(folder), name, tells, f'of {tensors[name].size} values'):
    assert part in str(error.value)
  tried(7, 'a weight that is NaN or infinite is found at load', 1)


HEADS = {
  'any bytes': b'\0' * 20,
  'nan': {'kernel': np.full(4, np.nan, np.float32), 'bias': np.zeros(())},
  'whole numbers': {'kernel': np.zeros(4, np.int32), 'bias': np.zeros(())},
  'shape': {'kernel': np.zeros((4, 4), np.float32), 'bias': np.zeros(())},
}


@pytest.mark.parametrize('name', HEADS)
def test_reward_heads(name, folder, tiny, tried):
  import safetensors.numpy

  from kdjax import config as config_lib

  path, content = folder / roles.AUXILIARY, HEADS[name]
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    tensors = {f'reward/{k}': np.asarray(v) for k, v in content.items()}
    safetensors.numpy.save_file(tensors, path)
  c, _ = config_lib.check(tiny(reward__path=str(folder)))
  with pytest.raises(ValueError, match='auxiliary.safetensors'):
    roles.load_reward_head(c)
  tried(PROMISE, "a reward model's head", 1)


@pytest.mark.parametrize('role', ['student', 'teacher', 'reference', 'reward'])
def test_the_role_is_named(role, folder, tiny, tried):
  import safetensors.numpy

  from kdjax import config as config_lib
  from kdjax.data import vocabularies

  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['model.norm.weight'][0] = np.nan
  safetensors.numpy.save_file(tensors, path)
  section = {f'{role}__path': str(folder), f'{role}__config': {}}
  c, _ = config_lib.check(tiny(**section))
  with pytest.raises(
    ValueError, match=f'(?s)the {role}: .*model.norm.weight has 1'
  ):
    roles.load(role, c, vocabularies.load('g2p'))
  tried(7, 'a weight that is NaN or infinite is found at load', 1)
