"""What a config says under the title."""

from kdjax.page import facts
from tests.page import folders


def test_a_run_is_told_by_task_recipe_and_models():
  told = facts.of_run(folders.config())
  assert told['task'] == 'debsum'
  assert told['recipe'] == 'gkd (lam 0.5, beta 0.1)'
  assert told['teacher'] == 'kdjax:debsum-teacher'
  assert told['optimizer'] == 'adafactor, 0.003'


def test_of_several_runs_only_what_they_share():
  configs = [folders.config(seed=0), folders.config(seed=1), {}]
  told = facts.shared(configs)
  assert 'seed' not in told and told['steps'] == '60'
  assert facts.shared([{}]) == {}


def test_values_are_as_one_would_type_them():
  values = [0.5, 1e-4, 100000, True, 'js', 1.0]
  assert [facts.value(x) for x in values] == [
    '0.5',
    '0.0001',
    '100000',
    'true',
    'js',
    '1',
  ]
