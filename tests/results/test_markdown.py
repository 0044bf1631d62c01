"""results.md says what was best, on what, and what is missing."""

import shutil

import pytest

from kdjax.results import load
from kdjax.results.markdown import markdown


@pytest.fixture(scope='module')
def text(tmp_path_factory, write_sweep):
  folder = tmp_path_factory.mktemp('small')
  states = {'method=sft,seed=1': 'failed', 'method=gkd,seed=1': 'pending'}
  axes = {'method': ['sft', 'gkd']}
  return markdown(load(write_sweep(folder, axes, states=states, count=60)))


def test_it_says_which_is_best_and_on_what(text):
  assert text.startswith('# Results of configs/gkd_g2p.py\n')
  assert 'Best by exact_match: method=gkd with ' in text
  assert 'g2p, test split, 60 examples, means of 2 seeds, 95% inter' in text
  assert '- phoneme_error_rate: edits over phones' in text


def test_failed_and_pending_runs_are_listed(text):
  assert '- method=sft,seed=1: ValueError: NaN loss' in text
  assert 'Pending runs, left out of the numbers:\n\n- method=gkd' in text


def test_tables_are_aligned_and_the_best_is_bold_once(text):
  rows = [line for line in text.splitlines() if line.startswith('|')]
  scores, gains = rows[:6], rows[6:]
  assert 'phoneme_error_rate (less is better)' in scores[0]
  assert [row.split()[1] for row in scores[2:]] == [
    'teacher',
    'undistilled',
    'sft',
    'gkd',
  ]
  assert [row.split()[1] for row in gains[2:]] == ['sft', 'gkd']
  for table in (scores, gains):
    assert len({len(row) for row in table}) == 1
  (bold,) = (row for row in rows if '**' in row)
  assert bold.count('**') == 6 and bold.startswith('| gkd')


def test_one_seed_is_warned_of(tmp_path, write_sweep):
  folder = write_sweep(tmp_path, {'method': ['sft', 'gkd']}, (0,), count=60)
  text = markdown(load(folder))
  assert 'one seed, 95% intervals over examples' in text
  assert 'nothing is known of how seeds differ' in text


def test_a_reference_that_is_missing_is_said(tmp_path, write_sweep):
  folder = write_sweep(tmp_path, {'beta': [0.5]}, (0,), count=30)
  shutil.rmtree(folder / 'reference')
  text = markdown(load(folder))
  assert 'reference has not been scored' in text
  assert '## Gain' not in text and '| teacher' not in text


def test_nothing_done_is_no_error(tmp_path, write_sweep):
  states = {'beta=0.5,seed=0': 'failed'}
  folder = write_sweep(tmp_path, {'beta': [0.5]}, (0,), states=states, count=9)
  assert markdown(load(folder)) == (
    '# Results of configs/gkd_g2p.py\n\n'
    'Failed runs, left out of the numbers:\n\n'
    '- beta=0.5,seed=0: ValueError: NaN loss\n'
  )
