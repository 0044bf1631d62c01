"""What a page shows is what the files hold, of whole and of partial folders."""

import pytest

from kdjax import results
from kdjax.page import collect
from tests.page import folders


def _settings(page):
  return {each['id']: each for each in page['settings']}


def test_a_run_has_three_systems_and_its_config(tmp_path):
  page = collect.collect(folders.run(tmp_path))
  assert page['kind'] == 'run' and page['title'] == 'debsum: gkd'
  assert page['primary'] == 'rouge2'
  (after,) = page['settings']
  assert after['metrics']['rouge2'] == [21.0, 20.0, 22.0]
  assert after['metrics']['length'] == [10.5, None, None]
  assert after['gain'][0] == 6.0
  assert [each['id'] for each in page['references']] == [
    'teacher',
    'student before',
  ]
  assert page['config'] == folders.config()
  assert list(page['sets']['']['responses']) == [
    'teacher',
    'student before',
    'student after',
  ]
  assert 'recovers 67%' in page['headline'][0]


def test_less_is_better_where_it_is(tmp_path):
  page = collect.collect(folders.run(tmp_path))
  lower = {each['name']: each['lower'] for each in page['metrics']}
  assert lower['ter'] and lower['forward_kl_gold'] and not lower['rouge2']
  assert page['lower'] == ['ter']


def test_a_sweep_has_a_row_a_setting_with_the_numbers_of_its_table(tmp_path):
  page = collect.collect(folders.sweep(tmp_path))
  assert page['kind'] == 'sweep' and page['title'] == 'debsum: lam × beta'
  table = results.load(tmp_path).table()
  rows = table[table['system'] == 'student after']
  found = _settings(page)
  assert len(found) == len(rows) == 6
  for _, row in rows.iterrows():
    ours = found[f'lam={row["lam"]:g}, beta={row["beta"]:g}']
    numbers = [row[f'rouge2{end}'] for end in ('', '_low', '_high')]
    assert ours['metrics']['rouge2'] == pytest.approx(numbers, rel=1e-4)
  assert page['facts']['runs'] == '15 done, 1 failed, 2 pending'
  assert 'seed' not in page['facts'] and page['facts']['steps'] == '60'


def test_failed_and_pending_runs_are_shown_as_such(tmp_path):
  page = collect.collect(folders.sweep(tmp_path))
  found = _settings(page)['lam=0.5, beta=0.9']
  assert [run['state'] for run in found['runs']] == ['done', 'failed', 'done']
  assert 'loss is not finite' in found['runs'][1]['tail']
  found = _settings(page)['lam=1, beta=0.9']
  assert [run['state'] for run in found['runs']].count('pending') == 2


def test_the_headline_is_the_best_of_the_results(tmp_path):
  page = collect.collect(folders.sweep(tmp_path))
  best = results.load(tmp_path).best()
  assert page['headline'][0].startswith(best.setting.label)
  assert '+6.40 rouge2 over the undistilled student' in page['headline'][0]
  assert "can't be told from" in page['headline'][0]


def test_a_sweep_shows_one_seed_of_each_setting_beside_the_references(tmp_path):
  page = collect.collect(folders.sweep(tmp_path))
  assert list(page['sets']['reference']['responses']) == [
    'teacher',
    'student before',
    *_settings(page),
  ]


def test_runs_of_two_references_are_shown_with_their_own(tmp_path):
  folders.sweep(tmp_path, references=('debsum', 'g2p'))
  page = collect.collect(tmp_path)
  assert [each['id'] for each in page['references']] == [
    'teacher (debsum)',
    'student before (debsum)',
    'teacher (g2p)',
    'student before (g2p)',
  ]
  shown = {k: list(each['responses']) for k, each in page['sets'].items()}
  assert shown['debsum'][2:] == [
    each['id'] for each in page['settings'] if each['reference'] == 'debsum'
  ]
  assert len(shown['debsum']) == len(shown['g2p']) == 5


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
  folders.write_json(tmp_path / 'config.json', folders.config())
  page = collect.collect(tmp_path)
  assert page['headline'] == ['There are no test scores.']
  assert page['settings'][0]['curves'] == [] and page['sets'] == {}


def test_a_run_without_evaluations_has_curves(tmp_path):
  folders.write_json(tmp_path / 'config.json', folders.config())
  lines = folders.metric_lines(20.0, 0, evaluations=False)
  folders.write_lines(tmp_path / 'metrics.jsonl', lines)
  (training,) = collect.collect(tmp_path)['settings'][0]['curves']
  assert list(training['y']) == ['loss']


def test_a_sweep_of_which_nothing_is_done_has_a_page(tmp_path):
  folders.sweep(tmp_path, {(0, 0.1): [..., None], (1, 0.1): [..., ...]})
  page = collect.collect(tmp_path)
  assert page['headline'] == ['No run is done yet.']
  assert page['primary'] == ''


def test_other_folders_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'no sweep\.json and no config\.json'):
    collect.collect(tmp_path)
