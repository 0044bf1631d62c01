"""Heat maps hold the means, in their order, and mark the best."""

import numpy as np
import pytest
from matplotlib import patches

from kdjax.results import figures, load


@pytest.fixture(scope='module')
def sweep(grid):
  return load(grid)


@pytest.mark.parametrize('metric', ['exact_match', 'phoneme_error_rate'])
def test_cells_hold_the_means(sweep, metric):
  panel = figures.heat_map(sweep, metric).axes[0]
  (image,) = panel.images
  table = sweep.table([metric])[2:]
  expected = table.pivot(
    index='beta', columns='student_fraction', values=metric
  )
  np.testing.assert_allclose(image.get_array(), expected.to_numpy(float))
  assert [t.get_text() for t in panel.get_xticklabels()] == [
    '0',
    '0.25',
    '0.5',
    '1',
  ]
  assert [t.get_text() for t in panel.get_yticklabels()] == [
    '0.1',
    '0.5',
    '0.9',
  ]
  (box,) = (p for p in panel.patches if isinstance(p, patches.Rectangle))
  centre = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
  assert centre == pytest.approx((2, 2), abs=0.05)


def test_darker_is_better(sweep):
  for metric in ('exact_match', 'phoneme_error_rate'):
    image = figures.heat_map(sweep, metric).axes[0].images[0]
    colours = image.cmap(image.norm(image.get_array()))[..., :3].sum(-1)
    darkest = np.unravel_index(colours.argmin(), colours.shape)
    assert darkest == (2, 2)


def test_cells_say_half_the_interval(sweep):
  panel = figures.heat_map(sweep).axes[0]
  texts = {text.get_position(): text.get_text() for text in panel.texts}
  found = sweep.best().score
  half = (found.high - found.low) / 2
  assert texts[(2, 2)] == f'{found.value:.1f}\n±{half:.1f}'


def test_axes_can_be_chosen(sweep):
  panel = figures.heat_map(sweep, x='beta', y='student_fraction').axes[0]
  assert panel.get_xlabel() == 'beta'
  assert panel.images[0].get_array().shape == (4, 3)


def test_other_axes_have_panels(tmp_path, write_sweep):
  axes = {
    'method': ['gkd', 'imitkd'],
    'student_fraction': [0, 0.5],
    'beta': [0.1, 0.9],
  }
  states = {'method=imitkd,student_fraction=0,beta=0.1,seed=0': 'failed'}
  folder = write_sweep(tmp_path, axes, (0,), count=20, states=states)
  made = figures.heat_map(load(folder))
  panels = [axis for axis in made.axes if axis.images]
  titles = [axis.get_title('left') for axis in panels]
  assert titles == ['method=gkd', 'method=imitkd']
  assert {text.get_text() for text in panels[1].texts} >= {'failed'}
  assert panels[1].images[0].get_array().mask.sum() == 1


def test_axes_that_are_missing_are_named(sweep, grid):
  with pytest.raises(ValueError, match="no axis 'lam'; there are"):
    figures.heat_map(sweep, x='lam')
  alone = load(grid / 'student_fraction=1,beta=0.5,seed=1')
  with pytest.raises(ValueError, match='needs two axes of several values'):
    figures.heat_map(alone)
