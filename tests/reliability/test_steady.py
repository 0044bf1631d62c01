"""Promise 8: after warm-up nothing is compiled, and memory stays as it is."""

import gc
import os
import pathlib
import runpy
import statistics

import jax
import jax.numpy as jnp
import pytest

from kdjax import checks, evaluate, generate, train

ROOT = pathlib.Path(__file__).parents[2]
# What JAX reports for every program that it makes, also where its cache on the
# disk has it.
COMPILED = '/jax/core/compile/backend_compile_duration'
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 20}


@pytest.fixture
def compiled():
  """The list that grows by one for every program that is compiled."""
  found = []

  def listen(name, seconds, **unused):
    if name == COMPILED:
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def steps(monkeypatch, compiled):
  """Of every step: itself, programs, resident bytes, arrays and objects."""
  seen = []
  take = train.Trainer._step

  def step(trainer, done, current):
    after = take(trainer, done, current)
    objects = 0
    if done % 10 == 0:
      gc.collect()
      objects = len(gc.get_objects())
    arrays = len(jax.live_arrays())
    seen.append((done, len(compiled), _resident(), arrays, objects))
    return after

  monkeypatch.setattr(train.Trainer, '_step', step)
  return seen


def _resident():
  """Bytes of this process in memory."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


def test_the_count_counts(compiled):
  double = jax.jit(lambda x: 2 * x)
  double(jnp.zeros(3)).block_until_ready()
  before = len(compiled)
  assert before
  for _ in range(5):
    double(jnp.zeros(3)).block_until_ready()
  assert len(compiled) == before
  double(jnp.zeros(4)).block_until_ready()
  assert len(compiled) > before


# Everything that changes what a step does, and by which step all of it has
# been met: an evaluation and a checkpoint among them.
RUNS = {
  'a fused step': ({}, 21),
  'a scheduled mixture': ({'recipe__lam': RISING}, 21),
  'a coin a batch': ({'recipe__coin': 'batch'}, 21),
  'rollouts ahead': ({'rollout_ahead': True}, 21),
  'several updates': ({'updates_per_rollout': 2, 'behaviour_sync': 3}, 21),
  'timed phases': ({'time_phases': True}, 21),
  'rewards over texts': (
    {'recipe': {'name': 'reinforce', 'reward': 'exact_match'}},
    21,
  ),
  'preferences': (
    {
      'recipe': {'name': 'dpkd', 'lm_weight': 0.0},
      'task__teacher_responses': 'online',
    },
    21,
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', RUNS)
def test_nothing_is_compiled_after_warm_up(name, tiny, tmp_path, steps, tried):
  """The last third of a run: evaluations, checkpoints and all."""
  changes, warm = RUNS[name]
  ending = {'eval__every': 10, 'eval__test_examples': 2, 'eval__browse': 0}
  c = tiny(**ending, **changes, steps=41, checkpoint__every=10)
  train.train(checks.validate(c), str(tmp_path))
  counts = {done: count for done, count, *_ in steps}
  assert counts[warm] and counts[41] == counts[warm], counts
  tried(8, 'runs whose programs were counted', 1)


@pytest.mark.slow
def test_a_partial_batch_runs_the_same_program(tiny, tmp_path, compiled, tried):
  """Twelve test examples in batches of 4, and in batches of 5."""
  counts = {}
  for rows in (4, 5):
    for mode, run in (('evaluate', evaluate), ('generate', generate)):
      c = tiny(
        eval__batch_size=rows,
        eval__browse=0,
        generate__batch_size=rows,
        generate__split='test',
      )
      before = len(compiled)
      workdir = str(tmp_path / f'{mode}{rows}')
      getattr(run, mode)(checks.validate(c, mode), workdir)
      counts[mode, rows] = len(compiled) - before
  for mode in ('evaluate', 'generate'):
    assert 0 < counts[mode, 5] <= counts[mode, 4], counts
  tried(8, 'partial batches', 2)


def assert_flat(seen):
  """What is held doesn't grow with the steps, from the first third on.

  Arrays on the devices are as many after each step. So are Python's objects,
  but for some of caches that fill: less than one a step. Resident memory moves
  by some per cent as the allocator takes pages and hands them back, so that
  medians are compared: of the last third and of the second.
  """
  third = len(seen) // 3
  middle, last = seen[third : 2 * third], seen[2 * third :]
  assert len({arrays for *_, arrays, _ in middle + last}) == 1
  (first, *_), (end, *_) = middle[0], last[-1]
  assert last[-1][-1] - middle[0][-1] < end - first, seen
  before, after = (
    statistics.median(resident for _, _, resident, *_ in part)
    for part in (middle, last)
  )
  assert after < 1.05 * before, seen


@pytest.mark.slow
def test_memory_is_flat(tiny, tmp_path, steps, tried):
  """With evaluations and checkpoints all along."""
  c = tiny(
    steps=240,
    eval__every=20,
    eval__test_examples=2,
    eval__browse=0,
    checkpoint__every=20,
  )
  train.train(checks.validate(c), str(tmp_path))
  sampled = [each for each in steps if each[0] % 10 == 0]
  assert_flat(sampled)
  tried(8, 'steps whose memory was watched', 240)


def test_memory_is_flat_over_the_embedded_job(full, tmp_path, steps, tried):
  if not full:
    pytest.skip('takes minutes: --full')
  load = runpy.run_path(str(ROOT / 'configs' / 'gkd_xsum.py'))['get_config']
  c = load('embedded')
  c.steps, c.eval.every, c.checkpoint.every = 2_000, 500, 250
  c.eval.examples = c.eval.test_examples = 128
  train.train(checks.validate(c), str(tmp_path))
  counts = {done: count for done, count, *_ in steps}
  assert counts[2_000] == counts[20]
  assert_flat([each for each in steps if each[0] % 10 == 0])
  tried(8, 'steps of the embedded job', 2_000)
