"""Every file in configs/ builds, and is valid, for each of its arguments."""

import importlib.util
import pathlib

import pytest

from kdjax import checks

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
  path
  for path in (ROOT / 'configs').glob('*.py')
  if 'def get_config' in path.read_text()
)


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def arguments(module):
  """The file's default, and ':embedded' where it takes that."""
  try:
    module.get_config('embedded')
  except ValueError as error:
    assert "'embedded'" in str(error)
    return ['']
  return ['', 'embedded']


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch):
  monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_configs_are_valid(path):
  module = load(path)
  assert f'--config=configs/{path.name}' in module.__doc__
  assert checks.validate(module.get_config()) == checks.validate(
    module.get_config('')
  )
  for argument in arguments(module):
    view = checks.validate(module.get_config(argument))
    assert view.recipe['name']
    if argument == 'embedded':
      assert not view.student.path.startswith('google/')
      assert view.task.vocabulary in ('debsum', 'g2p')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_unknown_arguments_are_refused(path):
  with pytest.raises(ValueError, match='unknown config argument'):
    load(path).get_config('no_such_argument')


def test_the_named_configs_exist():
  names = {path.stem for path in FILES}
  assert names >= {
    'gkd_gsm8k',
    'gkd_wmt14_ende',
    'gkd_xsum',
    'seqkd_xsum',
    'sft_xsum',
    'supervised_kd_xsum',
  }
