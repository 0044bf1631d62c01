"""Curves are means over seeds, at the steps that all of them reached."""

import math

import pytest

from kdjax.page import curves


def _lines(values, **more):
  return [
    {'step': 10 * i, 'loss': value, 'total/seconds': 2.0 * i, **more}
    for i, value in enumerate(values)
  ]


def test_seeds_are_averaged_where_all_have_come():
  (found,) = curves.of_setting([_lines([1.0, 2.0, 3.0]), _lines([3.0, 5.0])], 9)
  assert found['y'] == {'loss': {'value': [2.0, 3.5]}}
  assert found['x'] == {'steps': [0.0, 10.0], 'seconds': [0.0, 2.0]}


def test_the_band_is_the_interval_of_one_seed_or_the_extremes_of_several():
  def line(value):
    scores = {'eval/f1': value, 'eval/f1_low': 0.0, 'eval/f1_high': 9.0}
    return [{'step': 0, **scores}]

  (one,) = curves.of_setting([line(4.0)], 9)
  assert one['y']['eval/f1'] == {'value': [4.0], 'low': [0.0], 'high': [9.0]}
  (none,) = curves.of_setting([line(4.0)], 9, interval=False)
  assert none['y']['eval/f1'] == {'value': [4.0]}
  (two,) = curves.of_setting([line(4.0), line(5.0)], 9)
  assert two['y']['eval/f1'] == {'value': [4.5], 'low': [4.0], 'high': [5.0]}


def test_validation_and_training_lines_keep_their_own_steps():
  lines = _lines([1.0, 2.0]) + [{'step': 5, 'eval/f1': 3.0, 'teacher/f1': 7.0}]
  validation, training = curves.of_setting([lines], 9)
  assert validation['x']['steps'] == [5.0]
  assert training['x']['steps'] == [0.0, 10.0]
  assert curves.teacher(lines) == {'f1': 7.0}


def test_a_long_curve_is_thinned_by_averages():
  values = [float(i) for i in range(1000)]
  (found,) = curves.of_setting([_lines(values)], 10)
  assert found['y']['loss']['value'][0] == pytest.approx(49.5)
  assert len(found['x']['steps']) == 10


def test_what_is_not_finite_is_a_gap():
  (found,) = curves.of_setting([_lines([1.0, math.nan])], 9)
  assert found['y']['loss']['value'] == [1.0, None]


def test_no_lines_no_curves():
  assert curves.of_setting([], 9) == curves.of_setting([[]], 9) == []
