"""The script that trains every recipe: what it covers and how it counts."""

import json
import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def script():
  return runpy.run_path(str(ROOT / 'benchmarks' / 'recipes.py'))


def test_every_embedded_config_is_run(script):
  # These have figures of their own, or need what another command writes.
  apart = {'gkd_xsum', 'gkd_g2p', 'sft_xsum', 'sft_g2p', 'seqkd_xsum'}
  apart |= {'supervised_kd_xsum'}
  embedded = {
    path.stem
    for path in (ROOT / 'configs').glob('*_*.py')
    if 'embedded=False' in path.read_text()
  }
  assert embedded - apart == set(script['OBJECTIVES']) - apart


def test_figures_are_means_of_both_ends(script, tmp_path):
  lines = [{'step': 20 * i, 'loss/kd': float(i)} for i in range(20)]
  lines[0]['loss/kd'] = 3.0
  lines[5]['skipped'] = 2
  lines.insert(1, {'step': 20, 'eval/exact_match': 7.0})
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (tmp_path / 'metrics.jsonl').write_text(text)
  results = {'student before': {'exact_match': 1}, 'student after': {}}
  results['student after']['exact_match'] = 2
  (tmp_path / 'results.json').write_text(json.dumps(results))
  (tmp_path / 'seconds.json').write_text('{"seconds": 9}')
  found = script['figures']('word_kd_dolly', tmp_path)
  assert (found['first'], found['last'], found['skipped']) == (2.25, 17.5, 2)
  row = script['table']({'word_kd_dolly': found}).splitlines()[-1]
  assert row == (
    '| `word_kd_dolly.py` | `loss/kd` ↓ | 2.25 | 17.5 | 2 | '
    'exact_match 1.00 → 2.00 | 9 |'
  )
