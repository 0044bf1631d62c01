"""Every script of one phase runs in this process, and writes what it found."""

import json

import pytest

from benchmarks import (
  decode,
  growth,
  loss,
  memory,
  phases,
  roofline,
  score,
  shapes,
  step,
  tables,
  workers,
)

RUNS = {
  decode: ['--variants=base,greedy'],
  score: ['--variants=with logits'],
  step: ['--variants=logits of 64 tokens'],
  loss: ['--sizes=4', '--no-peaks'],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(
    roofline, 'measure', lambda dtype='float32': roofline.Peaks(1e11, 1e10)
  )


@pytest.mark.slow
@pytest.mark.parametrize('script', RUNS, ids=lambda x: x.__name__)
def test_script(script, tmp_path, capsys):
  flags = ['--shape=tiny-llama', '--rounds=1', '--limit=1', f'--out={tmp_path}']
  script.main([*flags, *RUNS[script]])
  name = f'{script.__name__.rpartition(".")[2]}-tiny-llama-float32'
  record = json.loads((tmp_path / f'{name}.json').read_text())
  assert record['rows'] and record['machine']['cores'] >= 1
  assert record['machine']['versions']['jax']
  text = (tmp_path / f'{name}.md').read_text()
  assert text.strip() in capsys.readouterr().out
  for row in record['rows']:
    assert row['n'] == 1 and row['variant'] in text


def test_flags_replace_a_shapes_sizes():
  parser = tables.parser('', 'gpt2')
  args = parser.parse_args(['--batch=3', '--vocabulary=99', '--dtype=bfloat16'])
  shape = shapes.from_flags(args)
  assert (shape.family, shape.batch, shape.vocabulary) == ('gpt2', 3, 99)
  assert shape.response == shapes.SHAPES['gpt2'].response
  assert shapes.restore(json.loads(json.dumps(shapes.plain(shape)))) == shape
  with pytest.raises(ValueError, match='--shape=other: known are'):
    shapes.from_flags(parser.parse_args(['--shape=other']))


def test_unknown_variants_are_named():
  with pytest.raises(
    ValueError, match="no \\['c'\\]; known are \\['a', 'b'\\]"
  ):
    phases.chosen({'a': 1, 'b': 2}, 'a,c')
  assert phases.chosen({'a': 1, 'b': 2}, 'b') == {'b': 2}


def test_growth_scales_one_size_at_a_time():
  shape = shapes.SHAPES['llama']
  found = growth.points(shape, 'batch,vocabulary', '0.5,2')
  sizes = [(axis, each.batch, each.vocabulary) for axis, each in found]
  assert sizes == [
    ('batch', 4, 8192),
    ('batch', 16, 8192),
    ('vocabulary', 8, 4096),
    ('vocabulary', 8, 16384),
  ]


def test_growth_draws_its_curves(tmp_path):
  rows = [
    {'axis': axis, 'size': size, 'ms': float(size), 'peak MiB': 2.0 * size}
    for axis in ('batch', 'response')
    for size in (1, 2)
  ]
  growth.plot(rows, tmp_path / 'curves.png')
  assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_a_peak_is_what_was_held_for_a_moment():
  if not memory._STATUS.exists():
    pytest.skip('this system has no /proc')
  peak = memory.Peak()
  block = bytearray(64 * memory.MIB)
  del block
  assert 60 <= peak.read() / memory.MIB < 100


def echo(station, value):
  """A worker whose steps count up."""
  steps = [0]
  phases = {'value': lambda: value, 'steps': lambda: steps[0], 'fail': fail}
  while True:
    station.hold(phases)
    steps[0] += 1


def fail():
  raise KeyError('on purpose')


@pytest.mark.slow
def test_workers_step_when_asked_and_report_failures(tmp_path):
  entry = 'tests.benchmarks.test_scripts:echo'
  worker = workers.Worker('w', entry, {'value': 7}, str(tmp_path / 'log'))
  try:
    assert worker.call('value') == 7
    assert worker.time('step', 3).seconds >= 0
    assert worker.time('value').seconds >= 0
    assert worker.call('steps') == 3
    with pytest.raises(workers.Failed, match='on purpose'):
      worker.call('fail')
    with pytest.raises(workers.Failed, match='w: '):
      worker.call('value')
  finally:
    worker.stop()
