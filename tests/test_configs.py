"""Every file in configs/ builds, and is valid, for each of its arguments."""

import importlib.util
import pathlib

import pytest

from kdjax import checks, recipes

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


# What the papers compare, of files whose other arguments are numbers and paths.
VARIANTS = [
  ('distillm_dolly', 'divergence=skew_reverse_kl'),
  ('dpkd_dolly', 'form=ipo'),
  ('dpkd_dolly', 'form=cpo'),
  ('dpkd_dolly', 'form=simpo'),
  ('dpkd_dolly', 'length_normalized=false'),
  ('dpkd_dolly', 'lm_weight=0'),
  ('dpo_hh', 'form=ipo'),
  ('dpo_hh', 'form=cpo'),
  ('dpo_hh', 'form=simpo'),
  ('engine_dart', 'form=straight_through'),
  ('engine_dart', 'form=reinforce'),
  ('f_distill_dart', 'divergence=kl'),
  ('f_distill_dart', 'divergence=rkl'),
  ('f_distill_dart', 'divergence=tvd'),
  ('f_distill_dart', 'mixture=exact'),
  ('f_distill_dart', 'skew=0.85'),
  ('gkd_rl_xsum', 'divergence=reverse_kl'),
  ('imitkd_wmt14_ende', 'soft'),
  ('layer_matching_dart', 'kind=cosine'),
  ('layer_matching_dart', 'kind=adversarial'),
  ('layer_matching_dart', 'kind=attention'),
  ('layer_matching_dart', 'kind=cross_attention'),
  ('layer_matching_dart', 'strategy=all_to_one'),
  ('llmr_dailydialog', 'reward=induced_soft'),
  ('llmr_dailydialog', 'sparse'),
  ('llmr_dailydialog', 'warm'),
  ('minillm_dolly', 'released'),
  ('ranking_dolly', 'form=hinge'),
  ('ranking_dolly', 'form=linear'),
  ('reinforce_xsum', 'kl_weight=0.1'),
  ('self_distillation_dailydialog', 'sparse'),
  ('sft', 'task=dart'),
  ('sft', 'task=dailydialog'),
  ('sft', 'task=hh_rlhf'),
  ('sft', 'task=wmt14_ende'),
  ('word_kd_dolly', 'lora=8,weights=int8'),
]


@pytest.mark.parametrize('name, variant', VARIANTS)
def test_variants_are_valid(name, variant):
  module = load(ROOT / 'configs' / f'{name}.py')
  for argument in arguments(module):
    usual = checks.validate(module.get_config(argument))
    with_it = ','.join(filter(None, (argument, variant)))
    assert checks.validate(module.get_config(with_it)) != usual


def test_every_recipe_has_a_config():
  named = {load(path).get_config().recipe.name for path in FILES}
  assert named >= set(recipes.RECIPES) - {'terms'}


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
