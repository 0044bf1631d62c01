"""What wasn't finite is told once, and ends a run that gets nowhere."""

import logging

import pytest

from kdjax import nonfinite


def found(skipped=0, in_a_row=0, **rewards):
  named = {f'{nonfinite.REWARD}{k}': (v, 1) for k, v in rewards.items()}
  counts = {'skipped': (skipped, 1), 'consecutive_skipped': (in_a_row, 1)}
  return {'loss': (1.0, 1), **counts, **named}


def test_it_is_taken_out_of_the_metrics(caplog):
  watch = nonfinite.Watch(3)
  metrics = found(2, 1, fine=-1, learned=17)
  counts = watch.take(5, metrics)
  assert metrics == {'loss': (1.0, 1)}
  assert counts == {'skipped': (2, 1), 'consecutive_skipped': (1, 1)}
  (record,) = caplog.records
  assert record.getMessage() == (
    "step 5: the reward 'learned' is not finite for example 17 of the training "
    'split'
  )


def test_a_run_that_gets_nowhere_ends():
  watch = nonfinite.Watch(3)
  watch.take(5, found(9, 2))
  with pytest.raises(FloatingPointError, match='3 consecutive updates up to'):
    watch.take(6, found(10, 3))


def test_skipped_updates_are_told_where_they_become_more(caplog):
  caplog.set_level(logging.WARNING)
  watch = nonfinite.Watch(3)
  told = []
  for step, skipped in enumerate((0, 1, 1, 4, 4)):
    watch.tell(step, watch.take(step, found(skipped)), last=step == 4)
    told.append(len(caplog.records))
  assert told == [0, 1, 1, 2, 3]
  assert 'step 3: 4 updates so far were not finite' in caplog.messages[1]
