"""An axis finds what it sets."""

import sys

import pytest

from kdjax.sweep import names

CONFIG = 'configs/gkd_xsum.py:embedded'


@pytest.fixture(autouse=True)
def root(monkeypatch):
  monkeypatch.chdir(names.__file__.rpartition('/kdjax/')[0])


@pytest.mark.parametrize(
  ('values', 'flags'),
  [
    ({}, [f'--config={CONFIG}']),
    ({'lam': 0.5, 'beta': 1}, [f'--config={CONFIG},lam=0.5,beta=1']),
    ({'student_fraction': 0}, [f'--config={CONFIG},lam=0']),
    ({'steps': 7}, [f'--config={CONFIG}', '--config.steps=7']),
    (
      {'optimizer.learning_rate': 0.1, 'rollout_ahead': True},
      [
        f'--config={CONFIG}',
        '--config.optimizer.learning_rate=0.1',
        '--config.rollout_ahead=true',
      ],
    ),
    (
      {'updates_per_rollout': 2, 'clip_norm': 1},
      'axis .clip_norm. may be any of auxiliary_optimizer.clip_norm, optimizer',
    ),
    ({'draft_tokens': 1}, 'generate.draft_tokens, teacher_sampling.draft_'),
    ({'normalized': True}, ['--config.recipe.normalized=true']),
    ({'recipe.coin': 'batch'}, ['--config.recipe.coin=batch']),
    ({'lam': 'half'}, "'lam=half': expected lam=, then float"),
  ],
)
def test_an_axis_is_an_argument_a_field_or_the_recipes(values, flags):
  found = names.Names(CONFIG)
  if isinstance(flags, str):
    with pytest.raises(ValueError, match=flags):
      found.flags(values)
  else:
    given = found.flags(values)
    assert given[-len(flags) :] == flags
    config = names.load(given)
    assert config.recipe.name == 'gkd' and config.steps in (7, 600)


def test_what_is_nothings_is_said_of_all_axes_at_once():
  found = names.Names('configs/sft_g2p.py')
  with pytest.raises(
    ValueError, match="(?s)'lamm' is not an arg.*'recipe.b' is not an a"
  ):
    found.flags({'lamm': 1, 'recipe.b': 2})


def test_flags_make_the_config_that_the_command_line_makes():
  argv = sys.argv
  given = [f'--config={CONFIG},beta=0.25', '--config.sampling.top_k=5']
  config = names.load(given)
  assert (config.recipe.beta, config.sampling.top_k) == (0.25, 5)
  assert sys.argv is argv
  with pytest.raises(ValueError, match='nowhere.py'):
    names.load(['--config=nowhere.py'])


@pytest.mark.parametrize('signature', ['', 'data=None'])
def test_a_file_that_names_no_arguments_has_fields(tmp_path, signature):
  path = tmp_path / 'mine.py'
  path.write_text(
    f'from kdjax import config\n\n\ndef get_config({signature}):\n'
    "  c = config.default()\n  c.recipe.name = 'gkd'\n  return c\n"
  )
  config = f'{path}:data/x' if signature else str(path)
  found = names.Names(config).flags({'beta': 0.5, 'steps': 2})
  assert found == [
    f'--config={config}',
    '--config.recipe.beta=0.5',
    '--config.steps=2',
  ]
