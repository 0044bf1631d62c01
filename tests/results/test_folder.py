"""Sweeps and runs are read whole, or refused by name."""

import json
import shutil

import pytest

from kdjax.results import folder


def test_every_run_is_listed_with_its_state(grid):
  found = folder.read(grid)
  assert len(found.runs) == 36
  states = {run.name: run.state for run in found.runs if run.state != 'done'}
  assert states == {
    'student_fraction=0,beta=0.1,seed=1': 'failed',
    'student_fraction=1,beta=0.9,seed=2': 'pending',
  }
  (failed,) = (run for run in found.runs if run.state == 'failed')
  assert failed.reason.endswith('NaN loss') and not failed.scores


def test_references_are_named_after_what_they_are(grid):
  (known,) = folder.read(grid).references.values()
  assert list(known) == ['teacher', 'student before']
  assert known['student before'].key == 'student'
  assert known['teacher'].scores['exact_match'] > 70


def test_numbers_are_sorted_as_numbers(tmp_path, write_sweep):
  axes = {'top_k': [10, 9, 100], 'method': ['b', 'a']}
  found = folder.read(write_sweep(tmp_path, axes, seeds=(1, 0)))
  assert found.axes == {'top_k': [9, 10, 100], 'method': ['b', 'a']}
  first = [(run.values['top_k'], run.values['method']) for run in found.runs]
  assert first[:4] == [(9, 'b'), (9, 'b'), (9, 'a'), (9, 'a')]
  assert [run.seed for run in found.runs[:4]] == [0, 1, 0, 1]


def test_a_run_alone_is_a_sweep_of_one(tmp_path, grid):
  run = tmp_path / 'run'
  shutil.copytree(grid / 'student_fraction=0.5,beta=0.9,seed=2', run)
  scores = json.loads((run / 'results.json').read_text())
  scores['teacher'] = {'exact_match': 80.0}
  (run / 'results.json').write_text(json.dumps(scores))
  found = folder.read(run)
  (only,) = found.runs
  assert (only.name, only.seed, only.state) == ('run', 2, 'done')
  assert found.references[None]['teacher'].scores == {'exact_match': 80.0}


def test_what_has_no_reference_is_compared_with_its_own(tmp_path, write_sweep):
  path = write_sweep(tmp_path, {'beta': [0.1]}, seeds=(0,))
  shutil.rmtree(path / 'reference')
  assert folder.read(path).references == {'reference': {}}
  results = path / 'beta=0.1,seed=0' / 'results.json'
  scores = json.loads(results.read_text())
  scores['student before'] = {'exact_match': 40.0}
  results.write_text(json.dumps(scores))
  (known,) = folder.read(path).references.values()
  assert known['student before'].scores == {'exact_match': 40.0}


def test_a_setting_may_lack_an_axis(tmp_path, write_sweep):
  path = write_sweep(tmp_path, {'beta': [0.9, 0.1]}, seeds=(0,))
  sweep = json.loads((path / 'sweep.json').read_text())
  sweep['runs'][0]['values'] = {'method': 'sft'}
  (path / 'sweep.json').write_text(json.dumps(sweep))
  found = folder.read(path)
  assert found.axes == {'beta': [0.1], 'method': ['sft']}
  assert [run.values for run in found.runs] == [
    {'beta': 0.1},
    {'method': 'sft'},
  ]


@pytest.mark.parametrize(
  'text, message',
  [
    ('{', 'sweep.json, line 1: not JSON'),
    ('[]', "sweep.json: expected an object with a list of 'runs'"),
    ('{"runs": []}', "a list of 'runs'"),
    ('{"runs": [{"name": "a"}]}', r"runs\[0\] has no \['seed', 'values'\]"),
  ],
)
def test_a_sweep_that_is_none_is_refused(tmp_path, text, message):
  (tmp_path / 'sweep.json').write_text(text)
  with pytest.raises(ValueError, match=message):
    folder.read(tmp_path)


@pytest.mark.parametrize(
  'name, message', [('', 'has neither'), ('no', 'is not a folder')]
)
def test_a_folder_that_is_none_is_refused(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    folder.read(tmp_path / name)


def test_results_without_the_student_are_refused(tmp_path):
  (tmp_path / 'results.json').write_text('{"student": {"rouge2": 1.0}}')
  with pytest.raises(ValueError, match=r"results\.json: expected .*'student'"):
    folder.read(tmp_path)
