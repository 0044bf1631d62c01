"""Analyses are drawn as they were written."""

import json

import numpy as np
import pytest

from kdjax.results import figures, load
from kdjax.results.figures import decoding


@pytest.fixture(scope='module')
def sweep(grid):
  return load(grid)


@pytest.fixture(scope='module')
def known(grid):
  path = grid / 'student_fraction=0.5,beta=0.9,seed=0' / 'analyses.json'
  return json.loads(path.read_text())


def lines_of(panel):
  lines = {line.get_label(): line for line in panel.lines}
  return {k: v for k, v in lines.items() if not k.startswith('_')}


def test_temperatures_are_drawn_with_self_bleu(known):
  made = figures.temperatures({'gkd': known}, 'exact_match')
  rows = known['temperatures']['student']
  for panel, name in zip(made.axes, ('exact_match', 'self_bleu')):
    line = lines_of(panel)['gkd']
    assert list(line.get_xdata()) == [row['temperature'] for row in rows]
    assert list(line.get_ydata()) == [row[name] for row in rows]


def test_the_first_metric_is_drawn_unless_asked(known):
  made = figures.temperatures({'gkd': known})
  assert made.axes[0].get_title('left') == 'exact_match'


def test_temperatures_are_sorted_and_seeds_averaged(sweep, known):
  line = lines_of(figures.temperatures(sweep).axes[0])[
    'student_fraction=0.5, beta=0.9'
  ]
  assert list(line.get_xdata()) == [0.1, 0.5, 1.0]
  rows = known['temperatures']['student']
  # The made-up seeds have the same analyses.
  assert list(line.get_ydata()) == pytest.approx(
    [row['exact_match'] for row in rows]
  )


def test_exposure_bias_is_drawn_with_its_band(known):
  (panel,) = figures.exposure_bias({'gkd': known}).axes
  found = known['exposure_bias']['student']
  line = lines_of(panel)['gkd']
  np.testing.assert_array_equal(line.get_xdata(), found['length'])
  np.testing.assert_allclose(line.get_ydata(), found['ex_error'])
  (path,) = panel.collections[0].get_paths()
  assert path.vertices[:, 1].min() == min(found['excess_error_low'])
  assert path.vertices[:, 1].max() == max(found['excess_error_high'])


def test_an_error_over_nothing_is_a_gap(known):
  changed = json.loads(json.dumps(known))
  changed['exposure_bias']['student']['ex_error'][0] = None
  (panel,) = figures.exposure_bias({'gkd': changed}).axes
  assert np.isnan(lines_of(panel)['gkd'].get_ydata()[0])


def test_seeds_of_other_lengths_meet_in_the_shorter(known):
  short = json.loads(json.dumps(known))
  for values in short['exposure_bias']['student'].values():
    del values[8:]
  source = {'a': known, 'b': short}
  (panel,) = figures.exposure_bias(source).axes
  lengths = {k: len(v.get_xdata()) for k, v in lines_of(panel).items()}
  assert lengths == {'a': 12, 'b': 8}


def test_folders_are_sources(grid):
  names = [f'student_fraction={x},beta=0.5,seed=0' for x in (0, 1)]
  (panel,) = figures.exposure_bias([grid / name for name in names]).axes
  assert list(lines_of(panel)) == names


def test_a_sweep_says_which_it_has(sweep, grid):
  assert decoding.available(sweep) == {'exposure_bias', 'temperatures'}


def test_what_is_missing_is_named(known, tmp_path, write_sweep):
  with pytest.raises(ValueError, match="have no metric 'rouge2'; there are"):
    figures.temperatures({'gkd': known}, 'rouge2')
  with pytest.raises(ValueError, match=r"'exposure_bias'; run --mode=evaluate"):
    figures.exposure_bias({'gkd': {'temperatures': {}}})
  folder = write_sweep(tmp_path, {'beta': [0.5]}, (0,), count=10)
  with pytest.raises(ValueError, match='There are no analyses'):
    figures.temperatures(load(folder))
