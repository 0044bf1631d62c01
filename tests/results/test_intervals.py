"""Intervals hold what they should as often as they should."""

import math
import pathlib

import numpy as np
import pytest

from kdjax import evaluation
from kdjax.evaluation.bootstrap import percentiles
from kdjax.results import intervals, load
from kdjax.results.examples import Examples, System

NOWHERE = pathlib.Path('/nowhere')


def lone(value, **ends):
  """A system without examples."""
  return System('student after', {'m': value, **ends}, NOWHERE, '')


def known(values):
  """A system that scored values [N] on as many examples."""
  values = np.asarray(values, float)
  system = System('student after', {'m': values.mean()}, NOWHERE, '')
  count = len(values)
  system.__dict__['examples'] = Examples(
    ids=tuple(range(count)),
    inputs=('',) * count,
    texts=('',) * count,
    references=([''],) * count,
    lengths=np.zeros(count),
    gold_lengths=np.zeros(count),
    scores={'m': values},
  )
  return system


def test_one_seed_has_the_interval_of_its_results():
  found = intervals.estimate([lone(3.0, m_low=1.0, m_high=4.5)], 'm')
  assert found[:4] == (3.0, 1.0, 4.5, 1)
  assert found.over == 'examples' and math.isnan(found.sd)


def test_one_seed_without_an_interval_has_none():
  found = intervals.estimate([lone(3.0)], 'm')
  assert found.value == 3.0 and math.isnan(found.low) and not found.over


def test_nothing_scored_is_nothing():
  assert math.isnan(intervals.estimate([], 'm').value)
  assert intervals.estimate([lone(math.nan)], 'm').seeds == 0


def test_seeds_alone_by_hand():
  found = intervals.estimate([lone(x) for x in (1.0, 2.0, 6.0)], 'm')
  assert found.value == pytest.approx(3.0)
  assert found.sd == pytest.approx(math.sqrt(7))
  assert (found.seeds, found.over) == (3, 'seeds')
  # All three draws are the least seed once in 27, more than 2.5%: the ends of
  # the plain interval are those of the range, here 2 below and 3 above.
  wide = intervals.widening(3)
  assert found.low == pytest.approx(3 - 2 * wide)
  assert found.high == pytest.approx(3 + 3 * wide)


@pytest.mark.parametrize(
  'seeds, t', [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)]
)
def test_widening_is_by_tabled_quantiles(seeds, t):
  expected = t / 1.96 * math.sqrt(seeds / (seeds - 1))
  assert intervals.widening(seeds) == pytest.approx(expected, rel=1e-3)


def test_without_widening_draws_stay_in_the_range():
  scores = np.array([1.0, 2.0, 6.0])
  found = intervals.draws(scores, scores.mean(), widened=False)
  assert found.min() == 1.0 and found.max() == 6.0


def test_seeds_that_agree_leave_the_interval_over_examples():
  values = np.random.default_rng(0).random(80)
  one = evaluation.Scores(
    np.stack([values, np.ones(80)], -1), lambda s: s[..., 0] / s[..., 1]
  )
  expected = evaluation.interval(one)
  found = intervals.estimate([known(values) for _ in range(3)], 'm')
  assert found[:3] == pytest.approx(expected)
  assert found.over == 'seeds and examples' and found.sd == 0


@pytest.mark.parametrize('make', [lone, lambda x: known([x, x + 1, x - 1])])
def test_intervals_hold_the_mean(make):
  for seed in range(20):
    values = np.random.default_rng(seed).normal(size=4)
    found = intervals.estimate([make(x) for x in values], 'm')
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(values.mean())


def test_intervals_shrink_like_one_over_the_root_of_seeds():
  rng = np.random.default_rng(0)
  widths = []
  for count in (100, 1600):
    found = intervals.estimate([lone(x) for x in rng.normal(size=count)], 'm')
    widths.append(found.high - found.low)
  # Quantiles of 1000 draws and the sample's sd are good to 10%.
  assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.2)
  assert widths[1] == pytest.approx(2 * 1.96 / math.sqrt(1600), rel=0.15)


def test_examples_that_differ_are_not_resampled_together():
  found = intervals.estimate([known([1, 2, 3]), known([1, 2])], 'm')
  assert found.over == 'seeds'


def test_a_gain_of_one_seed_is_the_paired_difference():
  rng = np.random.default_rng(0)
  values = rng.random((2, 60))
  expected = evaluation.paired_difference(
    *(
      evaluation.Scores(
        np.stack([each, np.ones(60)], -1), lambda s: s[..., 0] / s[..., 1]
      )
      for each in values
    )
  )
  found = intervals.difference(*([known(each)] for each in values), 'm')
  assert found[:3] == pytest.approx(expected)
  assert found.over == 'examples'


def test_a_gain_that_all_share_is_certain():
  values = np.random.default_rng(0).random((3, 60))
  before = [known(each) for each in values]
  after = [known(each + 0.5) for each in values]
  found = intervals.difference(before, after, 'm')
  assert found[:3] == pytest.approx((0.5, 0.5, 0.5))


def test_a_reference_stands_for_every_seed():
  found = intervals.difference([lone(1.0)], [lone(2.0), lone(4.0)], 'm')
  assert found.value == 2.0 and found.seeds == 2
  assert found.sd == pytest.approx(math.sqrt(2))


def test_what_is_not_known_has_no_interval():
  found = intervals.difference([lone(1.0)], [lone(2.0)], 'm')
  assert found.value == 1.0 and math.isnan(found.low)
  assert math.isnan(intervals.difference([lone(math.nan)], [lone(1.0)], 'm')[0])


def test_sides_of_other_seeds_are_refused():
  with pytest.raises(ValueError, match='3 seeds before, 2 after'):
    intervals.difference([lone(1.0)] * 3, [lone(1.0)] * 2, 'm')


def test_the_order_of_seeds_changes_no_end_of_three(grid):
  setting = load(grid).settings[4]
  students = list(setting.systems.values())
  for metric in ('exact_match', 'forward_kl_student'):
    found = [
      intervals.estimate(order, metric) for order in (students, students[::-1])
    ]
    # The same resamples of examples, others of seeds: 1000 draws' noise.
    assert found[0][:3] == pytest.approx(found[1][:3], rel=0.02)


def _coverage(seeds, across, noise, trials=600, examples=60):
  """How often the interval holds the truth, 0, plainly and widened.

  Args:
    seeds: how many.
    across: standard deviation of the seeds' true means.
    noise: of an example, half of it shared by all seeds.
  """
  rng = np.random.default_rng(0)
  held = np.zeros(2)
  for _ in range(trials):
    shared = rng.normal(scale=noise, size=examples)
    own = rng.normal(scale=noise, size=(seeds, examples))
    values = rng.normal(scale=across, size=(seeds, 1)) + own + shared
    centre = values.mean()
    if noise:
      drawn = rng.integers(examples, size=(intervals.RESAMPLES, examples))
      centre = values.mean(0)[drawn].mean(1)
    for i, widened in enumerate((False, True)):
      scores = values.mean(1)
      low, high = percentiles(intervals.draws(scores, centre, widened))
      held[i] += low <= 0 <= high
  return held / trials


# The standard error of a share near 0.95 of 600 is 0.9 points, near 0.75 1.8.
@pytest.mark.slow
@pytest.mark.parametrize(
  'seeds, plain, wide', [(2, 0.5, 0.93), (3, 0.75, 0.95), (5, 0.84, 0.95)]
)
def test_coverage_over_seeds_alone(seeds, plain, wide):
  found = _coverage(seeds, across=1.0, noise=0.0)
  assert found[0] == pytest.approx(plain, abs=0.05)
  assert found[1] == pytest.approx(wide, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize('across', [0.1, 0.5, 2.0])
def test_coverage_over_seeds_and_examples(across):
  # Examples are resampled in their interval of 60, a point short by itself.
  plain, wide = _coverage(3, across=across, noise=3.0)
  assert 0.92 <= wide <= 0.995 and plain < wide
