"""Settings, tables and the best of a sweep."""

import json
import math
import random
import shutil

import numpy as np
import pytest

from kdjax.results import load


@pytest.fixture(scope='module')
def sweep(grid):
  return load(grid)


def scores_of(folder, name):
  return json.loads((folder / name / 'results.json').read_text())[
    'student after'
  ]


def test_a_table_has_the_references_and_a_row_a_setting(grid, sweep):
  table = sweep.table(['exact_match'])
  assert list(table['system'][:3]) == [
    'teacher',
    'student before',
    'student after',
  ]
  assert len(table) == 2 + 12
  assert list(table.columns[:4]) == [
    'system',
    'student_fraction',
    'beta',
    'seeds',
  ]
  settings = table[2:][['student_fraction', 'beta']].to_numpy().tolist()
  assert settings == sorted(settings)
  row = table[(table['student_fraction'] == 0.5) & (table['beta'] == 0.9)]
  values = [
    scores_of(grid, f'student_fraction=0.5,beta=0.9,seed={seed}')
    for seed in range(3)
  ]
  values = [each['exact_match'] for each in values]
  assert row['exact_match'].item() == pytest.approx(np.mean(values))
  assert row['exact_match_sd'].item() == pytest.approx(np.std(values, ddof=1))
  before = table['exact_match'][1]
  assert row['exact_match_gain'].item() == pytest.approx(
    np.mean(values) - before
  )
  assert row['exact_match_low'].item() < np.mean(values)
  assert row['exact_match_over'].item() == 'seeds and examples'


def test_a_failed_run_hides_no_other(grid, sweep):
  table = sweep.table(['exact_match'])
  row = table[(table['student_fraction'] == 0) & (table['beta'] == 0.1)]
  assert row['seeds'].item() == row['exact_match_n'].item() == 2
  values = [
    scores_of(grid, f'student_fraction=0,beta=0.1,seed={seed}')
    for seed in (0, 2)
  ]
  assert row['exact_match'].item() == pytest.approx(
    np.mean([each['exact_match'] for each in values])
  )


def test_the_order_of_runs_changes_nothing(tmp_path, grid, sweep):
  folder = tmp_path / 'again'
  shutil.copytree(grid, folder)
  other = json.loads((folder / 'sweep.json').read_text())
  random.Random(0).shuffle(other['runs'])
  (folder / 'sweep.json').write_text(json.dumps(other))
  other = load(folder)
  assert other.table().equals(sweep.table())
  assert other.long().equals(sweep.long())
  assert str(other.best()) == str(sweep.best())


def test_long_has_a_row_a_run(grid, sweep):
  long = sweep.long()
  assert len(long) == 36
  assert long['state'].value_counts().to_dict() == {
    'done': 34,
    'failed': 1,
    'pending': 1,
  }
  row = long[long['run'] == 'student_fraction=1,beta=0.5,seed=1']
  assert row['seed'].item() == 1 and row['beta'].item() == 0.5
  scores = scores_of(grid, row['run'].item())
  for metric, value in scores.items():
    assert row[metric].item() == value
  assert long[long['state'] == 'failed']['exact_match'].isna().all()


def test_curves_have_a_row_a_step(grid, sweep):
  curves = sweep.curves('exact_match')
  assert len(curves) == 36 * 7
  own = curves[curves['run'] == 'student_fraction=1,beta=0.5,seed=1']
  lines = (grid / own['run'].iloc[0] / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  lines = [line for line in lines if 'eval/exact_match' in line]
  for column, name in (
    ('step', 'step'),
    ('seconds', 'total/seconds'),
    ('sampled_tokens', 'total/sampled_tokens'),
    ('value', 'eval/exact_match'),
    ('low', 'eval/exact_match_low'),
  ):
    assert own[column].tolist() == [line[name] for line in lines]


def test_curves_of_what_is_logged_and_of_nothing(sweep):
  loss = sweep.curves('loss')
  assert loss['value'].isna().sum() == 36, 'null, at step 0'
  with pytest.raises(ValueError, match=r"'rouge2'; there are .*'exact_match'"):
    sweep.curves('rouge2')


def test_a_broken_line_of_a_run_is_named(tmp_path, grid):
  folder = tmp_path / 'run'
  shutil.copytree(grid / 'student_fraction=1,beta=0.5,seed=1', folder)
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 9\n')
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 15: not JSON'):
    load(folder).curves('exact_match')


def test_the_best_is_named_with_what_it_gains(sweep):
  best = sweep.best()
  assert best.metric == 'exact_match'
  assert best.setting.values == {'student_fraction': 0.5, 'beta': 0.9}
  assert best.runner_up.values == {'student_fraction': 0.5, 'beta': 0.5}
  table = sweep.table(['exact_match'])
  assert best.score.value == table['exact_match'][2:].max()
  assert best.gain.value == pytest.approx(
    best.score.value - table['exact_match'][1]
  )
  assert best.over_runner_up.value == pytest.approx(
    best.score.value - best.runner_up.estimate('exact_match').value
  )
  text = str(best)
  assert text.startswith(
    'Best by exact_match: student_fraction=0.5, beta=0.9 with '
  )
  assert 'over the undistilled student' in text
  assert 'over the runner-up, student_fraction=0.5, beta=0.5' in text


def test_less_is_better_where_it_is(sweep):
  for metric in ('phoneme_error_rate', 'forward_kl_student'):
    best = sweep.best(metric)
    assert best.setting.values == {'student_fraction': 0.5, 'beta': 0.9}
    assert best.gain.value < 0 and 'less is better' in str(best)


def test_equals_are_not_told_apart(tmp_path, write_sweep):
  # These methods have made-up students of one skill and the same luck.
  folder = write_sweep(tmp_path, {'method': ['sft', 'word', 'seqkd']})
  best = load(folder).best()
  assert [each.values['method'] for each in best.alike] == ['word']
  assert best.over_runner_up.value == 0.0
  assert "Can't be told from it: method=word." in str(best)


def test_what_is_far_is_told_apart(sweep):
  far = {(x.values['student_fraction']) for x in sweep.best().alike}
  assert not far & {0, 1}


def test_a_run_alone_compares_with_its_own_references(grid):
  folder = grid / 'student_fraction=1,beta=0.5,seed=1'
  run = load(folder)
  scores = scores_of(grid, folder.name)
  row = run.table().iloc[0]
  for name in ('exact_match', 'exact_match_low', 'exact_match_high', 'length'):
    assert row[name] == scores[name]
  assert math.isnan(row['exact_match_gain'])
  assert run.best().runner_up is None and str(run.best()).count('.') > 0


def test_a_ragged_sweep_has_a_part_for_each_set_of_axes(ragged):
  sweep = load(ragged)
  first, second = sweep.grids
  assert first.axes == {'method': ['sft', 'seqkd']}
  assert second.axes == {
    'method': ['gkd'],
    'student_fraction': [0, 0.5],
    'beta': [0.1, 0.9],
  }
  assert len(first.settings) == 2 and len(second.settings) == 4
  both = [each.best().score.value for each in (first, second)]
  assert max(both) == sweep.best().score.value
  # What was read is shared.
  system = sweep.settings[0].systems[0]
  assert any(x.systems[0] is system for x in first.settings)


def test_nothing_done_is_said(tmp_path, write_sweep):
  states = {f'beta={x},seed=0': 'pending' for x in (0.1, 0.9)}
  folder = write_sweep(tmp_path, {'beta': [0.1, 0.9]}, (0,), states=states)
  found = load(folder)
  assert len(found.table()) == 4 and len(found.long()) == 2
  with pytest.raises(ValueError, match=r'no run is done yet .*seed=0: pending'):
    found.best()


def test_an_unknown_metric_is_refused(sweep):
  for ask in (sweep.best, lambda name: sweep.table([name])):
    with pytest.raises(
      ValueError, match=r"no metric 'rouge9'; there are exact"
    ):
      ask('rouge9')
