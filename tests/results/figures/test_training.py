"""Curves hold the seeds' means against what was asked."""

import shutil

import numpy as np
import pytest

from kdjax.results import figures, load


@pytest.fixture(scope='module')
def sweep(grid):
  return load(grid)


def lines_of(panel):
  return {
    line.get_label(): line
    for line in panel.lines
    if not line.get_label().startswith('_')
  }


@pytest.mark.parametrize('x', ['step', 'seconds', 'sampled_tokens'])
def test_lines_are_means_over_seeds(sweep, x):
  made = figures.curves(sweep, 'exact_match', x)
  titles = [panel.get_title('left') for panel in made.axes]
  assert titles == ['beta=0.1', 'beta=0.5', 'beta=0.9']
  frame = sweep.curves('exact_match')
  own = frame[(frame['student_fraction'] == 0.25) & (frame['beta'] == 0.5)]
  expected = own.groupby(own['step'].to_numpy())[[x, 'value']].mean()
  line = lines_of(made.axes[1])['0.25']
  np.testing.assert_allclose(line.get_xdata(), expected[x])
  np.testing.assert_allclose(line.get_ydata(), expected['value'])


def test_the_band_holds_the_line(sweep):
  panel = figures.curves(sweep).axes[1]
  line = lines_of(panel)['0.25']
  (path,) = panel.collections[1].get_paths()
  for x, y in zip(line.get_xdata(), line.get_ydata()):
    edge = path.vertices[path.vertices[:, 0] == x, 1]
    assert edge.min() <= y <= edge.max()


def test_the_level_of_the_student_is_where_it_began(sweep):
  lines = lines_of(figures.curves(sweep).axes[0])
  frame = sweep.curves('exact_match')
  start = frame[frame['step'] == 0]['value'].mean()
  assert lines['undistilled student'].get_ydata()[0] == pytest.approx(start)
  # The teacher was scored on other examples than these.
  assert 'teacher' not in lines


def test_the_teacher_that_validation_scored_is_a_level(tmp_path, grid):
  run = tmp_path / 'run'
  shutil.copytree(grid / 'student_fraction=1,beta=0.5,seed=1', run)
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 300, "teacher/exact_match": 81.5}\n')
  lines = lines_of(figures.curves(load(run)).axes[0])
  assert lines['teacher'].get_ydata()[0] == 81.5


def test_what_samples_nothing_is_its_last_point(sweep):
  line = lines_of(figures.curves(sweep, x='sampled_tokens').axes[0])['0']
  assert line.get_xdata().tolist() == [0.0] and line.get_linestyle() == 'None'
  frame = sweep.curves('exact_match')
  own = frame[(frame['student_fraction'] == 0) & (frame['beta'] == 0.1)]
  # Of the two runs that didn't fail.
  own = own[own['seed'] != 1]
  last = own[own['step'] == 300]['value'].mean()
  assert line.get_ydata()[0] == pytest.approx(last)


def test_one_seed_has_the_band_of_its_examples(grid):
  run = load(grid / 'student_fraction=1,beta=0.5,seed=1')
  made = figures.curves(run)
  frame = run.curves('exact_match')
  line = lines_of(made.axes[0])['student']
  assert line.get_ydata().tolist() == frame['value'].tolist()
  (path,) = made.axes[0].collections[0].get_paths()
  ends = path.vertices[:, 1]
  assert ends.min() == pytest.approx(frame['low'].min())
  assert ends.max() == pytest.approx(frame['high'].max())
  assert 'one seed' in made.get_supxlabel()


def test_what_training_logs_has_curves_too(sweep):
  made = figures.curves(sweep, 'loss', 'step')
  line = lines_of(made.axes[0])['1']
  assert line.get_xdata().tolist() == [50, 100, 150, 200, 250, 300]
  assert set(lines_of(made.axes[0])) == {'0', '0.25', '0.5', '1'}


def test_an_unknown_x_is_refused(sweep):
  with pytest.raises(ValueError, match="x is 'epochs'; expected one of step, "):
    figures.curves(sweep, x='epochs')


def test_runs_without_points_are_no_seeds(tmp_path, grid):
  folder = tmp_path / 'sweep'
  shutil.copytree(grid, folder)
  for path in folder.glob('*,seed=[12]/metrics.jsonl'):
    path.unlink()
  made = figures.curves(load(folder))
  assert 'one seed' in made.get_supxlabel()
  # All have the same examples: their bands would say nothing of differences.
  assert not any(panel.collections for panel in made.axes)
