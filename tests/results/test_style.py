"""Figures are readable, whoever reads them."""

import pytest

from kdjax.results import style


@pytest.mark.parametrize(
  'values, places',
  [([61.2, 40.0], 1), ([0.12, 0.35], 3), ([900.0, 100.0], 0), ([5.0], 1)],
)
def test_digits_tell_values_apart(values, places):
  assert style.digits(values) == places


def test_digits_and_colours_make_little_of_chance():
  assert style.digits([46.48, 46.09], [10.0, 9.0, 23.0]) == 1
  assert style.span([46.5, 46.0], [10.0, 9.0, 23.0]) == 10.0
  assert style.span([46.5, 26.0], [10.0, float('nan')]) == 20.5


def luminance(colour):
  from matplotlib import colors

  parts = [
    x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
    for x in colors.to_rgb(colour)
  ]
  return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), parts))


@pytest.mark.parametrize('ordered', [False, True])
@pytest.mark.parametrize('count', [1, 2, 7, 12, 20])
def test_lines_stand_out_from_white_and_from_each_other(count, ordered):
  looks = style.lines(count, ordered=ordered)
  assert len({tuple(map(str, look.values())) for look in looks}) == count
  assert max(luminance(look['color']) for look in looks) < 0.62


def test_nothing_global_is_left_behind():
  import matplotlib

  before = dict(matplotlib.rcParams)
  with style.style():
    made, _ = style.figure(width=4, height=3)
    style.title(made, 'a_b & $c', 'how')
    made.canvas.draw()
  assert dict(matplotlib.rcParams) == before
