"""Bars go from the undistilled student to the mean."""

import pytest

from kdjax.results import figures, load


@pytest.fixture(scope='module')
def sweep(tmp_path_factory, write_sweep):
  folder = tmp_path_factory.mktemp('methods')
  return load(
    write_sweep(folder, {'method': ['sft', 'seqkd', 'gkd']}, count=60)
  )


@pytest.mark.parametrize('metric', ['exact_match', 'phoneme_error_rate'])
def test_bars_end_at_the_means(sweep, metric):
  (panel,) = figures.bars(sweep, metric).axes
  table = sweep.table([metric])
  start = table[metric][1]
  for bar, (_, row) in zip(panel.patches, table[2:].iterrows(), strict=True):
    ends = sorted([bar.get_x(), bar.get_x() + bar.get_width()])
    assert ends == pytest.approx(sorted([start, row[metric]]))
  names = [text.get_text() for text in panel.get_yticklabels()]
  assert names == ['sft', 'seqkd', 'gkd']
  levels = {
    line.get_label(): line.get_xdata()[0]
    for line in panel.lines
    if not line.get_label().startswith('_')
  }
  assert levels == {
    'teacher': table[metric][0],
    'undistilled student': start,
  }


def test_whiskers_are_the_intervals(sweep):
  (panel,) = figures.bars(sweep).axes
  found = sweep.settings[2].estimate('exact_match')
  ends = [list(line.get_xdata()) for line in panel.lines]
  assert [found.low, found.high] in ends


def test_the_best_stands_out(sweep):
  (panel,) = figures.bars(sweep).axes
  colours = [bar.get_facecolor() for bar in panel.patches]
  assert colours[0] == colours[1] != colours[2]
  made = figures.bars(sweep, 'phoneme_error_rate')
  assert made.get_suptitle() == 'phoneme_error_rate is best with method=gkd'
  assert 'less is better' in made.axes[0].get_xlabel()
