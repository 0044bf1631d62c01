"""Sums and counts add up exactly; the metrics file survives a kill."""

import errno
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import metrics
from kdjax.metrics import tensorboard


def test_means_of_unequal_batches_add_up():
  values = np.arange(10.0)
  parts = [values[:3], values[3:4], values[4:]]
  total = None
  for part in parts:
    more = {'loss': metrics.Mean(jnp.sum(jnp.array(part)), len(part))}
    total = metrics.accumulate(total, more)
  assert metrics.summarize(total) == {'loss': values.mean()}
  # The mean of the parts' means is another number.
  assert np.mean([part.mean() for part in parts]) != values.mean()


def test_pairs_and_plain_values():
  first = {'a': (3.0, 2), 'rate': 0.1}
  second = {'a': (jnp.float32(5.0), 2), 'rate': 0.2, 'b': jnp.array(4)}
  total = metrics.accumulate(metrics.accumulate(None, first), second)
  assert metrics.summarize(total) == {'a': 2.0, 'rate': 0.2, 'b': 4.0}


def test_large_counts_are_exact():
  # float32 would stay at 2 ** 24.
  total = metrics.accumulate(None, {'n': (np.float32(2**24), 1)})
  total = metrics.accumulate(total, {'n': (np.float32(1), 0)})
  assert metrics.summarize(total)['n'] == 2**24 + 1


def test_a_mean_of_nothing_is_nan():
  assert math.isnan(metrics.Mean(0.0, 0).value)


def test_mean_is_a_pytree():
  mean = jax.jit(lambda m: m + m)(metrics.Mean(jnp.float32(1), jnp.int32(2)))
  assert (mean.total, mean.count, mean.value) == (2, 4, 0.5)


def test_lines_are_valid_json(tmp_path):
  writer = metrics.Writer(tmp_path)
  writer.write(1, {'loss': metrics.Mean(3.0, 2), 'norm': jnp.array(0.5)})
  writer.write(2, {'loss': float('nan'), 'norm': np.inf})
  writer.write_text(2, 'sample', 'a text')
  writer.close()

  def refuse(constant):
    raise AssertionError(constant)

  text = (tmp_path / 'metrics.jsonl').read_text()
  lines = [json.loads(x, parse_constant=refuse) for x in text.splitlines()]
  assert lines == [
    {'step': 1, 'loss': 1.5, 'norm': 0.5},
    {
      'step': 2,
      'loss': None,
      'norm': None,
      'nonfinite': {'loss': 'nan', 'norm': 'inf'},
    },
  ]
  assert list((tmp_path / 'tensorboard').iterdir())
  assert math.isnan(metrics.read(tmp_path)[1]['loss'])


def test_a_resumed_run_writes_no_step_twice(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  writer = metrics.Writer(whole)
  for step in range(1, 7):
    writer.write(step, {'loss': 1 / step})
  writer.close()

  writer = metrics.Writer(cut)
  for step in range(1, 6):
    writer.write(step, {'loss': 1 / step})
  writer.close()
  with (cut / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "lo')
  # The checkpoint is of step 3.
  writer = metrics.Writer(cut, start=4)
  for step in range(4, 7):
    writer.write(step, {'loss': 1 / step})
  writer.close()
  assert metrics.read(cut) == metrics.read(whole)
  assert [line['step'] for line in metrics.read(cut)] == [1, 2, 3, 4, 5, 6]


def test_an_evaluation_that_is_redone_leaves_the_step_s_other_line(tmp_path):
  first = metrics.Writer(tmp_path)
  for step in (1, 2, 3):
    first.write(step, {'loss': 1 / step})
    first.write(step, {'eval/length': step, 'teacher/length': 1})
  first.close()
  lines = metrics.read(tmp_path)
  metrics.Writer(tmp_path, start=3, redone='eval/').close()
  assert metrics.read(tmp_path) == lines[:3]


@pytest.mark.parametrize('method', ['__init__', 'flush', 'close'])
def test_what_fails_in_tensorboard_is_told_by_its_folder(
  method, tmp_path, monkeypatch
):
  def full(*args):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(tensorboard.Events, method, full)
  with pytest.raises(OSError) as error:
    writer = metrics.Writer(tmp_path)
    writer.write(1, {'loss': 1.0})
    writer.close()
  assert error.value.filename == str(tmp_path / 'tensorboard')


def test_only_process_zero_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  writer = metrics.Writer(tmp_path / 'run')
  writer.write(1, {'loss': 1.0})
  writer.write_text(1, 'sample', 'a text')
  writer.close()
  assert not (tmp_path / 'run').exists()


def clocked(*times):
  now = iter(times)
  return metrics.Throughput(clock=lambda: next(now))


def test_steps_are_measured_from_lap_to_lap():
  throughput = clocked(100.0, 102.0, 106.0, 107.0)
  throughput.lap({'step': 1e9})  # how long it took is not known: it compiled
  assert throughput.report() == {}
  throughput.lap({'step': 10})
  throughput.lap({'step': 20})
  assert throughput.report() == {
    'seconds/step': 3.0,
    'tokens_per_second/step': 5.0,
  }
  throughput.lap({'step': 7})
  assert throughput.report()['tokens_per_second/step'] == 7.0
  assert throughput.report() == {}


def test_what_is_done_between_steps_is_not_their_time():
  throughput = clocked(0.0, 1.0, 50.0, 52.0)
  throughput.lap({'step': 1})
  throughput.lap({'step': 8})
  throughput.restart()  # after an evaluation
  throughput.lap({'step': 16})
  assert throughput.report() == {
    'seconds/step': 1.5,
    'tokens_per_second/step': 8.0,
  }


def test_phases_are_means_over_the_steps():
  throughput = clocked(0.0, 9.0, 9.0, *(9.0, 11.0, 11.0, 14.0, 15.0))
  with throughput.phase('rollout'):
    pass  # compiles
  throughput.lap({'rollout': 1e9, 'step': 1e9})
  for _ in range(2):  # as often as a step has updates
    with throughput.phase('update'):
      pass
  throughput.lap({'update': 10, 'rollout': 0, 'step': 12})
  assert throughput.report() == {
    'seconds/update': 5.0,
    'tokens_per_second/update': 2.0,
    'seconds/step': 6.0,
    'tokens_per_second/step': 2.0,
  }


@pytest.mark.parametrize('terminal', [True, False])
def test_the_bar_shows_on_terminals_only(terminal, monkeypatch, capsys):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
  bar = metrics.progress_bar(10, initial=4, mininterval=0)
  bar.update(1)
  bar.close()
  assert ('5/10' in capsys.readouterr().err) == terminal


def test_what_training_took_goes_on_where_it_was_resumed():
  now = iter([0.0, 1.0, 5.0, 7.0, 100.0, 103.0])
  clock = lambda: next(now)
  spent = metrics.Spent(clock)
  assert set(spent.report().values()) == {0.0}
  spent.step(10, 20)
  spent.restart()  # what lies between isn't training
  spent.step(1, 2)
  saved = spent.report()
  resumed = metrics.Spent(clock)
  resumed.set_state(saved)
  resumed.step(0, 8)
  assert resumed.report() == {
    'total/seconds': 1.0 + 2.0 + 3.0,
    'total/sampled_tokens': 11.0,
    'total/learned_tokens': 30.0,
  }


def test_totals_go_on_bitwise_where_they_were_resumed():
  rng = np.random.default_rng(0)
  steps = [{'loss': (rng.normal(), 3), 'empty': (0.0, 0)} for _ in range(7)]
  whole = metrics.Totals()
  for each in steps:
    whole.add(each)
  first = metrics.Totals()
  for each in steps[:4]:
    first.add(each)
  resumed = metrics.Totals()
  resumed.set_state(json.loads(json.dumps(first.get_state())))
  for each in steps[4:]:
    resumed.add(each)
  found, expected = resumed.take(), whole.take()
  assert found['loss'] == expected['loss']
  assert math.isnan(found['empty']) and math.isnan(expected['empty'])
  assert resumed.take() == {}
