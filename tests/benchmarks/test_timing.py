"""Statistics of samples on a fake clock, and what is dropped."""

import math
import time

import pytest

from benchmarks import tables, timing


class Machine:
  """Two cores, a clock that work moves, and a noisy neighbour."""

  def __init__(self):
    self.now = self.own = self.others = 0.0

  def work(self, seconds, noise=0.0):
    self.now += seconds
    self.own += seconds
    self.others += noise

  def meter(self):
    return timing.Meter(
      lambda: self.now,
      lambda: self.own,
      lambda: self.own + self.others,
      cores=2,
    )


def fixed(*values):
  """Rounds of a base of 1 s and a variant; negative where it was disturbed."""
  return timing.Rounds(
    [
      {
        'base': timing.Sample(1.0, 0.0),
        'variant': timing.Sample(abs(value), 0.5 if value < 0 else 0.0),
      }
      for value in values
    ]
  )


def test_a_sample_is_the_mean_of_its_calls_and_knows_the_others_share():
  machine = Machine()
  sample = timing.measure(
    lambda: machine.work(2.0, noise=1.0), 3, machine.meter()
  )
  assert sample.seconds == pytest.approx(2.0)
  assert sample.contention == pytest.approx(3.0 / (6.0 * 2))


def test_without_a_counter_contention_is_unknown_and_nothing_is_dropped():
  meter = timing.Meter(
    iter([0.0, 1.0]).__next__, lambda: 0.0, lambda: math.nan, cores=2
  )
  sample = timing.measure(lambda: None, 1, meter)
  assert math.isnan(sample.contention)
  assert timing.Rounds([{'a': sample}]).values('a') == [1.0]


def test_the_systems_counter_grows_with_our_own_work():
  before = timing.busy_seconds()
  if math.isnan(before):
    pytest.skip('this system has no /proc/stat')
  own = time.process_time()
  while time.process_time() < own + 0.1:
    pass
  # A tick of 0.01 s may be missing at either end.
  assert timing.busy_seconds() - before >= 0.08


def test_medians_quartiles_and_ratios_leave_disturbed_samples_out():
  rounds = fixed(4.0, -90.0, 2.0, 3.0, 1.0, 5.0)
  assert rounds.seconds('variant') == timing.Spread(3.0, 2.0, 4.0, 5, 1)
  assert rounds.ratios('variant', 'base') == timing.Spread(3.0, 1.0, 5.0, 5, 1)
  assert rounds.seconds('base').n == 6


def test_ratios_are_taken_within_a_round():
  # Both slow down tenfold in one round: the ratio doesn't notice.
  rounds = timing.Rounds(
    [
      {'a': timing.Sample(x, 0.0), 'b': timing.Sample(2 * x, 0.0)}
      for x in (1.0, 10.0, 1.5)
    ]
  )
  found = rounds.ratios('b', 'a')
  assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)


def test_all_disturbed_gives_no_figure():
  rounds = fixed(-1.0, -2.0)
  assert math.isnan(rounds.seconds('variant').median)
  assert rounds.ratios('variant', 'base').n == 0
  assert '—' in tables.markdown(tables.rows(rounds, 'base'))


def test_rounds_alternate_and_begin_with_another_variant_each():
  order = []

  def taker(name):
    return lambda: order.append(name) or timing.Sample(1.0, 0.0)

  found = timing.alternate(
    {name: taker(name) for name in 'abc'}, 3, warmup=1, pause=0
  )
  assert len(found.samples) == 3
  assert ''.join(order) == 'cab' + 'abc' + 'bca' + 'cab'


def test_disturbed_rounds_are_made_up_for_until_patience_ends():
  shares = iter([0.5, 0.0, 0.5, 0.0] + [0.5] * 99)
  take = lambda: timing.Sample(1.0, next(shares))
  options = {'warmup': 0, 'pause': 0}
  assert len(timing.alternate({'a': take}, 2, **options).samples) == 4
  assert len(timing.alternate({'a': take}, 2, **options).samples) == 6
  eager = timing.alternate({'a': take}, 2, limit=0.6, **options)
  assert len(eager.samples) == 2


def test_json_holds_structs_and_no_nan():
  found = tables.plain({'spread': timing.Spread(math.nan, 0.0, 1.0, 0), 'n': 2})
  assert found['spread']['median'] is None and found['spread']['high'] == 1.0
