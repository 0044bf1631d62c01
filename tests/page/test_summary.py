"""The sentences say what the numbers say, and no more."""

from typing import NamedTuple

import pytest

from kdjax.page import summary

BEFORE, TEACHER = (15.0, 14.0, 16.0), (25.0, 24.0, 26.0)


def _run(after, gain, lower=False, **systems):
  known = {'teacher': TEACHER, 'student before': BEFORE} | systems
  return summary.of_run('f1', lower, known | {'student after': after}, gain)


def test_a_run_says_how_much_of_the_gap_it_recovers():
  first, second = _run((21.0, 20.0, 22.0), (6.0, 5.0, 7.0))
  assert first == 'Distillation recovers 60% of the gap to the teacher.'
  assert '15.00 [14.00, 16.00] before, 21.00 [20.00, 22.00] after' in second
  assert '+6.00 [+5.00, +7.00]' in second


def test_a_gain_that_may_be_chance_is_none():
  first, second = _run((15.5, 14.5, 16.5), (0.5, -0.1, 1.1))
  assert first == 'Distillation makes no clear difference to f1.'
  assert 'hard to tell apart' in second


def test_unpaired_intervals_decide_where_examples_are_missing():
  unknown = None, None
  assert 'no clear' in _run((15.9, 15.0, 16.8), (0.9, *unknown))[0]
  assert 'recovers' in _run((18.0, 17.0, 19.0), (3.0, *unknown))[0]


def test_a_loss_is_called_one_also_where_less_is_better():
  worse = (10.0, 9.0, 11.0), (-5.0, -6.0, -4.0)
  assert _run(*worse)[0] == 'Distillation makes f1 worse.'
  close = {'teacher': (14.5, 13.0, 16.0)}
  assert _run(*worse, lower=True, **close)[0] == 'Distillation improves f1.'


def test_no_share_of_a_gap_that_may_be_none():
  assert summary.recovered(BEFORE, (18.0, 17.0, 19.0), TEACHER) == 0.3
  near = (16.5, 15.5, 17.5)
  assert summary.recovered(BEFORE, (18.0, 17.0, 19.0), near) is None
  assert summary.recovered(BEFORE, (18.0, 17.0, 19.0), None) is None


def test_what_is_missing_is_said():
  assert summary.of_run('', False, {}, (None,) * 3) == [
    'There are no test scores.'
  ]
  (only,) = summary.of_run('f1', False, {'student after': BEFORE}, (None,) * 3)
  assert only == 'The student scores f1 15.00 [14.00, 16.00].'
  assert summary.of_sweep(None, None, None) == ['No run is done yet.']


class _Setting(NamedTuple):
  label: str


class _Estimate(NamedTuple):
  value: float
  low: float
  high: float


class _Best(NamedTuple):
  metric: str = 'f1'
  setting: _Setting = _Setting('beta=0.1')
  score: _Estimate = _Estimate(21.0, 20.0, 22.0)
  gain: _Estimate = _Estimate(6.0, 5.0, 7.0)
  runner_up: _Setting | None = _Setting('beta=0.5')
  over_runner_up: _Estimate = _Estimate(2.0, 1.0, 3.0)
  alike: tuple = ()


def test_a_sweep_says_which_was_best_and_by_how_much():
  first, second, third = summary.of_sweep(_Best(), BEFORE, TEACHER)
  assert first == 'beta=0.1 is best, +6.00 f1 over the undistilled student.'
  assert '60% of the gap is closed' in second
  assert third == (
    'Over the runner-up, beta=0.5: +2.00 [+1.00, +3.00]. '
    'All others are worse by more than chance.'
  )


@pytest.mark.parametrize(
  'count, words', [(1, 'one other'), (2, '2 others'), (5, '5 others')]
)
def test_ties_come_first(count, words):
  alike = tuple(_Setting(f'beta={i}') for i in range(count))
  first, _, third = summary.of_sweep(_Best(alike=alike), BEFORE, TEACHER)
  assert first.startswith('beta=0.1 scores best')
  assert first.endswith(f"but can't be told from {words}.")
  assert ('2 more' in third) == (count == 5)


def test_a_single_setting_is_not_called_the_best():
  first, second = summary.of_sweep(_Best(runner_up=None), None, None)
  assert first.startswith('beta=0.1 is the only setting that is done')
  assert second == 'f1 21.00 [20.00, 22.00].'
