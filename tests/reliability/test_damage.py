"""Promise 3: a damaged checkpoint is noticed, and never loaded."""

import json
import logging
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from kdjax import checkpoints, checksums


class Data:
  at = 0

  def get_state(self):
    return {'at': self.at}

  def set_state(self, state):
    self.at = state['at']


def arrays(step):
  key = jax.random.key(step)
  return {
    'x': jax.random.normal(key, (30, 20)),
    'key': key,
    'n': jnp.int32(step),
  }


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with the steps 1, 2 and 3."""
  folder = tmp_path_factory.mktemp('saved')
  with checkpoints.Checkpoints(folder) as manager:
    for step in (1, 2, 3):
      data = Data()
      data.at = step
      manager.save(step, arrays(step), data, {'eval/rouge2': float(step)})
  return folder


def flip(path, rng):
  content = bytearray(path.read_bytes())
  content[rng.integers(len(content))] ^= 1 << rng.integers(8)
  path.write_bytes(content)


def truncate(path, rng):
  os.truncate(path, rng.integers(path.stat().st_size))


def extend(path, rng):
  path.write_bytes(path.read_bytes() + rng.bytes(5))


def delete(path, rng):
  path.unlink()


def overwrite(path, rng):
  path.write_bytes(rng.bytes(path.stat().st_size))


def link(path, rng):
  path.rename(path.with_name('elsewhere'))
  path.symlink_to('elsewhere')


def pipe(path, rng):
  path.unlink()
  os.mkfifo(path)


def other_step(path, rng):
  _, _, *rest = path.parts[path.parts.index('checkpoints') :]
  other = path.parents[len(rest) - 1].with_name('1').joinpath(*rest)
  if other.exists() and other.read_bytes() != path.read_bytes():
    shutil.copy(other, path)
  else:
    path.unlink()


FAULTS = flip, truncate, extend, delete, overwrite, link, pipe, other_step


def folder(workdir, fault):
  """What may befall a whole folder."""
  path = workdir / 'checkpoints' / '3'
  if fault == 'empty':
    shutil.rmtree(path)
    path.mkdir()
  elif fault == 'without data':
    shutil.rmtree(path / 'data')
  elif fault == 'of another step':
    shutil.rmtree(path)
    shutil.copytree(path.with_name('1'), path)
  elif fault == 'unsealed':
    (path / 'seal.json').unlink()
  else:
    path.rename(path.with_name('3.orbax-checkpoint-tmp'))


def restored(workdir):
  template = checkpoints.abstract(arrays(0))
  with checkpoints.Checkpoints(workdir) as manager:
    data = Data()
    step, state = manager.restore(template, data)
    assert data.at == step == state['n']
    expected = arrays(step)
    np.testing.assert_array_equal(state['x'], expected['x'])
    assert state['key'] == expected['key']
    # The run goes on over the damaged step, and ends as it would have.
    for again in range(step + 1, 4):
      data.at = again
      assert manager.save(again, arrays(again), data)
    manager.wait()
    assert manager.restore(template, data)[0] == 3
  return step


def test_one_fault_anywhere_is_noticed(saved, tmp_path, fuzz, caplog):
  names = sorted(
    path.relative_to(saved)
    for path in (saved / 'checkpoints' / '3').rglob('*')
    if path.is_file()
  )
  workdir = tmp_path / 'run'

  def one(name, fault, seed):
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(saved, workdir)
    path = workdir / name
    if not path.stat().st_size:
      return
    caplog.clear()
    with caplog.at_level(logging.WARNING, 'kdjax'):
      fault(path, np.random.default_rng(seed))
      step = restored(workdir)
    if step == 3:
      # White space between the parts of a seal's JSON tells nothing.
      assert name.name == 'seal.json' and fault in (flip, extend)
      return
    assert step == 2
    assert 'step 3 is damaged' in caplog.text
    assert 'going on from step 2' in caplog.text

  fuzz(
    3, 'a fault in one of the files of a checkpoint', one,
    st.sampled_from(names), st.sampled_from(FAULTS), st.integers(0, 2**32),
    quick=20, often=1000,
  )  # fmt: skip


@pytest.mark.parametrize(
  'fault', ['empty', 'without data', 'of another step', 'unsealed', 'cut']
)
def test_whole_folders_are_noticed(saved, tmp_path, tried, caplog, fault):
  shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
  folder(tmp_path, fault)
  assert restored(tmp_path) == 2
  if fault != 'cut':
    assert 'step 3 is damaged' in caplog.text and 'from step 2' in caplog.text
  tried(
    3,
    "a checkpoint whose folder is empty, partial, another's or never finished",
    1,
  )


def test_arbitrary_seals_are_no_seals(saved, tmp_path, fuzz):
  """Promise 11, for the metadata of checkpoints: no crash, and no belief."""
  workdir = tmp_path / 'run'
  shutil.copytree(saved, workdir)
  path = workdir / 'checkpoints' / '3' / 'seal.json'
  good, record = path.read_bytes(), checksums.read_record(path)

  def forged(metrics):
    """A seal whose checksum fits."""
    checksums.write_record(path, {**record, 'metrics': metrics})
    return path.read_bytes()

  def one(content):
    if content == good:
      return
    path.write_bytes(content)
    with checkpoints.Checkpoints(workdir, read_only=True) as manager:
      assert manager.latest == 2
    path.write_bytes(good)

  values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
  )
  texts = values.map(lambda value: json.dumps(value).encode())
  cut = st.integers(0, len(good) - 3).map(lambda size: good[:size])
  nested = st.integers(1, 10**5).map(lambda depth: b'[' * depth)
  of_step = st.dictionaries(st.text(), values.filter(_is_no_number), min_size=1)
  metrics = (values | of_step).filter(_are_no_metrics).map(forged)
  fuzz(
    11, 'seals of checkpoints', one,
    st.binary() | texts | cut | nested | metrics, quick=100, often=5000,
  )  # fmt: skip


def _is_no_number(value):
  return not isinstance(value, float)


def _are_no_metrics(value):
  whole = isinstance(value, dict) and not any(
    map(_is_no_number, value.values())
  )
  return value is not None and not whole
