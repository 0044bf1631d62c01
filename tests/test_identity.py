"""A model's identity is its content, wherever it lies."""

import shutil

import pytest

from kdjax import checks, identity
from kdjax.config import Model
from kdjax.data import vocabularies


@pytest.fixture
def found(tiny, finished):
  """Returns a function of overrides to a teacher's identity."""

  def identify(**overrides):
    trained = {
      'teacher__config': {},
      'teacher__path': str(finished / 'student'),
    }
    c = checks.validate(tiny(**{**trained, **overrides}))
    return identity.model(c, 'teacher', vocabularies.load('g2p'))

  return identify


def test_copies_are_the_same_model(found, finished, tmp_path):
  copied = shutil.copytree(finished / 'student', tmp_path / 'copy')
  # What it is stored beside, and how it is computed, doesn't matter.
  (copied / 'auxiliary.safetensors').write_bytes(b'x')
  (copied / 'README.md').write_text('x')
  same = found(
    teacher__path=str(copied), teacher__dtype='bfloat16', seed=7, steps=3
  )
  assert same == found()


def test_rounding_is_told_apart():
  expected = {'dtype': 'float32', 'weights': 'int8', 'attention': 'plain'}
  assert identity.numerics(Model(weights='int8')) == expected


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
def test_one_byte_makes_another(name, found, finished, tmp_path):
  copied = shutil.copytree(finished / 'student', tmp_path / 'copy')
  content = bytearray((copied / name).read_bytes())
  content[-1] ^= 1
  (copied / name).write_bytes(content)
  assert found(teacher__path=str(copied)) != found()


def test_fewer_layers_make_another(found):
  assert found(teacher__layers={'decoder': (0,)}) != found()


def test_a_fresh_model_is_its_config_and_its_seed(found, tiny):
  fresh = {'teacher__path': '', 'teacher__config': tiny().teacher.config}
  assert found(**fresh) == found(**fresh)
  others = [
    found(),
    found(**fresh, seed=3),
    found(**fresh, teacher__init='copy'),
    found(
      teacher__path='', teacher__config={**tiny().teacher.config, 'd_ff': 16}
    ),
  ]
  assert found(**fresh) not in others
