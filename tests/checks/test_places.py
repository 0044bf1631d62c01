"""What a run would read of this machine, before it builds anything."""

import pytest

from kdjax import checks, config, train


def missing(c):
  with pytest.raises(config.ConfigError) as error:
    checks.check_places(checks.validate(c))
  return error.value.problems


def test_all_that_is_not_there_is_told_at_once(tiny, tmp_path):
  seqkd = {'name': 'seqkd'}
  part = {**tiny().task.to_dict(), 'args': {'path': 'no.jsonl', 'input': 'x'}}
  options = {
    'recipe': {'name': 'self_training'},
    'student__path': str(tmp_path / 'student'),
    'student__config': {},
    'task__args__path': str(tmp_path / '{split}.csv'),
    'tasks': {'unlabelled': {**part, 'teacher_responses': 'never/written'}},
  }
  found = missing(tiny(**options))
  for place in (
    f'student.path: no model directory at {tmp_path}/student',
    f'task: no data file {tmp_path}/train.csv',
    f'task: no data file {tmp_path}/validation.csv',
    f'task: no data file {tmp_path}/test.csv',
    'tasks.unlabelled: no data file no.jsonl',
    "tasks.unlabelled.teacher_responses='never/written': there is no such",
  ):
    assert sum(each.startswith(place) for each in found) == 1, (place, found)
  assert len(found) == 6
  # What the recipe doesn't read may be missing.
  checks.check_places(checks.validate(tiny(task__teacher_responses='never')))
  (found,) = missing(tiny(recipe=seqkd, task__teacher_responses='never'))
  assert found.startswith("task.teacher_responses='never'")


def test_nothing_is_built_before(tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(train.build, 'build', lambda config: pytest.fail())
  c = checks.validate(tiny(task__args__path=str(tmp_path / 'x')))
  with pytest.raises(config.ConfigError, match='no data file'):
    train.train(c, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
