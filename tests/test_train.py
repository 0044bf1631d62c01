"""Tests of the training loop: what it writes, and that kills don't show."""

import dataclasses
import gzip
import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from kdjax import build, checks, metrics, report, step, train, workdirs
from kdjax.checkpoints import Checkpoints, seals


def weights(workdir):
  return (workdir / 'student' / 'model.safetensors').read_bytes()


def lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def numbers(workdir):
  """The lines without what the clock decides over."""
  clock = ('seconds/', 'tokens_per_second/', 'total/seconds')
  return [
    {k: v for k, v in line.items() if not k.startswith(clock)}
    for line in lines(workdir)
  ]


def test_metrics_hold_losses_divergences_lengths_and_rates(finished):
  logged = [line for line in lines(finished) if 'loss' in line]
  assert [line['step'] for line in logged] == list(range(5, 41, 5))
  for line in logged:
    assert line['loss'] == pytest.approx(line['loss/gkd'])
    assert line['forward_kl'] > 0 and line['reverse_kl'] > 0
    assert line['gradient_norm'] > 0
    assert 1 <= line['rollout/length'] <= 6
    assert 0 <= line['rollout/eos_fraction'] <= 1
    assert line['skipped'] == line['consecutive_skipped'] == 0
    assert line['seconds/step'] > 0
    assert line['tokens_per_second/step'] > 0
    assert 'seconds/update' not in line
  assert logged[-1]['forward_kl'] < logged[0]['forward_kl']
  learned = [line['total/learned_tokens'] for line in lines(finished)]
  assert learned == sorted(learned) and learned[0] == 0 < learned[-1]


def test_evaluations_are_written_at_their_steps(finished):
  found = [x for x in lines(finished) if 'eval/forward_kl_gold' in x]
  assert [x['step'] for x in found] == [0, 20, 40]
  divergences = [x['eval/forward_kl_gold'] for x in found]
  assert divergences == sorted(divergences, reverse=True)
  assert all('eval/exact_match_low' in x for x in found)
  assert all('teacher/exact_match' in x for x in found)


def test_tensorboard_and_checkpoints_are_written(finished):
  assert list((finished / 'tensorboard').glob('events.out.tfevents.*'))
  steps = {int(p.name) for p in (finished / 'checkpoints').glob('[0-9]*')}
  assert steps == {35, 40}


@pytest.mark.slow
def test_killed_run_ends_bitwise_where_an_undisturbed_one_ends(
  finished, command, tmp_path
):
  # Any moment must do, so a failure may not come back: it says its moment.
  rng = np.random.default_rng()
  step, delay = int(rng.integers(1, 30)), rng.uniform(0, 0.3)
  process = command(f'--workdir={tmp_path}')
  deadline = time.monotonic() + 300
  path = tmp_path / 'metrics.jsonl'
  while not path.exists() or f'"step": {step - step % 5}' not in (
    path.read_text()
  ):
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.01)
  time.sleep(delay)
  process.kill()
  process.communicate()
  moment = f'killed {delay:.3f} s after step {step - step % 5} was written'
  assert process.returncode == -signal.SIGKILL, f'not {moment}: it was over'

  again = command(f'--workdir={tmp_path}')
  printed, log = again.communicate(timeout=300)
  assert again.returncode == 0, f'{moment}\n{log}'
  assert 'student after' in printed
  assert weights(tmp_path) == weights(finished), moment
  # Lines are logged when checkpoints are written: all of them come again.
  assert numbers(tmp_path) == numbers(finished), moment


def test_signal_saves_the_step_and_the_same_call_goes_on(
  finished, tiny, tmp_path, monkeypatch
):
  config = checks.validate(tiny())
  step_once = train.Trainer._step

  def interrupted(self, done, current):
    if done == 8:
      os.kill(os.getpid(), signal.SIGTERM)
    return step_once(self, done, current)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(train.Trainer, '_step', interrupted)
    with pytest.raises(SystemExit) as stopped:
      train.train(config, str(tmp_path))
  assert stopped.value.code == 128 + signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) is before
  assert (tmp_path / 'checkpoints' / '8').is_dir()
  assert not (tmp_path / 'student').exists()

  train.train(config, str(tmp_path))
  assert weights(tmp_path) == weights(finished)


@pytest.mark.parametrize(
  'home, method', [(train.Trainer, '_step'), (Checkpoints, 'save')]
)
def test_a_signal_in_the_last_step_leaves_what_is_left_to_the_next_start(
  home, method, tiny, tmp_path, monkeypatch
):
  original = getattr(home, method)

  def interrupted(self, done, *args):
    if done == 6:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(self, done, *args)

  with monkeypatch.context() as patch:
    patch.setattr(home, method, interrupted)
    with pytest.raises(SystemExit) as stopped:
      trained(short(tiny), tmp_path)
  assert stopped.value.code == 128 + signal.SIGTERM
  assert (tmp_path / 'checkpoints' / '6' / 'seal.json').exists()
  monkeypatch.setattr(train.Trainer, '_step', None)
  trained(short(tiny), tmp_path)


@pytest.mark.slow
def test_a_stop_during_evaluation_leaves_it_to_the_next_start(
  finished, tiny, tmp_path, monkeypatch
):
  config, evaluate = checks.validate(tiny()), train.Trainer._evaluate

  def interrupted(self, done, *args):
    if done == 20:
      os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(self, done, *args)

  with monkeypatch.context() as patch:
    patch.setattr(train.Trainer, '_evaluate', interrupted)
    with pytest.raises(SystemExit) as stopped:
      train.train(config, str(tmp_path))
  assert stopped.value.code == 128 + signal.SIGTERM
  assert lines(tmp_path)[-1]['step'] == 20
  assert not any('eval/length' in line for line in lines(tmp_path)[1:])
  train.train(config, str(tmp_path))
  # Step 20 is the best one, which its late metrics must say.
  assert weights(tmp_path) == weights(finished)
  assert numbers(tmp_path) == numbers(finished)


@pytest.mark.slow
def test_means_go_on_over_a_stop_between_two_lines(tiny, tmp_path, monkeypatch):
  config = short(tiny, log_every=4, checkpoint__every=3)
  trained(config, tmp_path / 'whole')
  step_once = train.Trainer._step

  def killed(self, done, current):
    if done == 4:
      raise KeyboardInterrupt  # step 3 was saved, and no line holds it
    return step_once(self, done, current)

  with monkeypatch.context() as patch:
    patch.setattr(train.Trainer, '_step', killed)
    with pytest.raises(KeyboardInterrupt):
      trained(config, tmp_path / 'cut')
  trained(config, tmp_path / 'cut')
  assert numbers(tmp_path / 'cut') == numbers(tmp_path / 'whole')
  assert [line['step'] for line in lines(tmp_path / 'cut')] == [4, 6]


def test_a_second_run_on_a_workdir_is_refused(finished, tiny, contents):
  with workdirs.locked(finished):
    before = contents(finished)
    with pytest.raises(ValueError, match='another run writes into'):
      train.train(checks.validate(tiny()), str(finished))
    assert contents(finished) == before


def test_finished_run_is_not_trained_again(finished, tiny, tmp_path, contents):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  before = contents(finished)
  train.train(checks.validate(tiny()), str(tmp_path))
  after = contents(tmp_path)
  kept = ('metrics.jsonl', 'student/', 'checkpoints/', 'results', 'config')
  for name, digest in before.items():
    if name.startswith(kept):
      assert after[name] == digest, name


def test_a_kill_before_an_evaluation_is_sealed_leaves_its_line_once(
  finished, tiny, tmp_path
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  seals.amend(tmp_path / 'checkpoints' / '40', metrics=None)
  trained(checks.validate(tiny()), tmp_path)
  assert numbers(tmp_path) == numbers(finished)
  assert seals.read(tmp_path / 'checkpoints' / '40')['metrics']


def test_another_config_in_the_same_workdir_is_refused(
  finished, tiny, contents
):
  before = contents(finished)
  config = checks.validate(tiny(recipe__lam=0.25, optimizer__b1=0.8))
  with pytest.raises(ValueError, match=r'recipe\.lam: 0\.5 → 0\.25') as error:
    train.train(config, str(finished))
  assert 'optimizer.b1' in str(error.value) and '--workdir' in str(error.value)
  assert contents(finished) == before


def test_checkpoint_of_another_config_is_refused(
  finished, tiny, tmp_path, contents
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  before = contents(tmp_path)
  wider = tiny(student__config={**tiny().student.config.to_dict(), 'd_ff': 48})
  wider.eval.every = 0
  wider.checkpoint.export = 'last'
  run = build.build(checks.validate(wider))
  with (
    jax.set_mesh(run.mesh),
    pytest.raises(ValueError, match=r'student\.config\.d_ff: 32 → 48'),
  ):
    train.Trainer(run, str(tmp_path)).train()
  assert contents(tmp_path) == before


def test_config_that_cannot_run_leaves_the_workdir_free(tiny, tmp_path):
  (tmp_path / 'empty').mkdir()
  path = str(tmp_path / 'empty')
  empty = checks.validate(tiny(teacher__config={}, teacher__path=path))
  with pytest.raises(FileNotFoundError, match='empty'):
    train.train(empty, str(tmp_path / 'a'))
  # Without data there is no run either.
  (tmp_path / 'none.jsonl').write_text('')
  empty = checks.validate(tiny(task__args__path=str(tmp_path / 'none.jsonl')))
  with pytest.raises(ValueError, match='none.jsonl|no examples'):
    train.train(empty, str(tmp_path / 'a'))
  assert not (tmp_path / 'a').exists()


def test_updates_that_stay_non_finite_end_the_run(tiny, tmp_path):
  config = checks.validate(
    tiny(
      max_skipped=3,
      eval__every=0,
      checkpoint__every=1,
      checkpoint__export='last',
    )
  )
  run = build.build(config)
  broken = jax.tree.map(lambda x: x * np.nan, run.student_params)
  run = dataclasses.replace(run, student_params=broken)
  with jax.set_mesh(run.mesh):
    with pytest.raises(FloatingPointError, match='3 consecutive .* step 3 '):
      train.Trainer(run, str(tmp_path)).train()
    # What was saved before is whole, and the same call ends likewise.
    with report.open_checkpoints(run, tmp_path) as saved:
      assert saved.steps == [1, 2]
    with pytest.raises(FloatingPointError, match='optimizer.learning_rate'):
      train.Trainer(run, str(tmp_path)).train()


def test_training_leaves_the_first_parameters_alone(tiny, tmp_path):
  """They become 'student before': donation must not reach the host's copy."""
  config = checks.validate(
    tiny(steps=2, eval__every=0, checkpoint__export='last')
  )
  run = build.build(config)
  before = jax.tree.map(np.array, run.student_params)
  with jax.set_mesh(run.mesh):
    after = train.Trainer(run, str(tmp_path)).train()['student']
  jax.tree.map(np.testing.assert_array_equal, run.student_params, before)
  changed = jax.tree.map(lambda x, y: bool(np.any(x != y)), after, before)
  assert all(jax.tree.leaves(changed))
  with report.open_checkpoints(run, tmp_path) as saved:
    assert saved.latest == 2, 'the last step is saved, whatever `every` says'
  assert [line['step'] for line in metrics.read(tmp_path)] == [2]


def short(tiny, **changes):
  return checks.validate(
    tiny(steps=6, eval__every=0, checkpoint__export='last', **changes)
  )


def trained(config, workdir):
  run = build.build(config)
  with jax.set_mesh(run.mesh):
    return train.Trainer(run, str(workdir)).train()['student']


def test_the_data_are_read_for_a_first_batch_and_for_the_loop(
  tiny, tmp_path, monkeypatch
):
  read, reads = train.Run.train_iterator, []
  monkeypatch.setattr(
    train.Run, 'train_iterator', lambda run: reads.append(run) or read(run)
  )
  trained(short(tiny), tmp_path)
  assert len(reads) == 2


def test_metrics_are_read_a_step_late_and_nothing_waits(
  tiny, tmp_path, monkeypatch
):
  run = build.build(short(tiny, checkpoint__every=6))
  happened, outputs = [], []

  def dispatch(self, *args, **kwargs):
    happened.append(('dispatch', len(outputs) + 1))
    outputs.append(update(self, *args, **kwargs))
    return outputs[-1]

  def fetch(tree):
    steps = [i for i, (_, found) in enumerate(outputs, 1) if tree is found]
    happened.extend(('fetch', step) for step in steps)
    return device_get(tree)

  update, device_get = step.Program.update, jax.device_get
  monkeypatch.setattr(step.Program, 'update', dispatch)
  with jax.set_mesh(run.mesh):
    trainer = train.Trainer(run, str(tmp_path))
    with monkeypatch.context() as patch:
      patch.setattr(jax, 'device_get', fetch)
      patch.delattr(jax, 'block_until_ready')
      trainer.train()
  late = [[('dispatch', i + 1), ('fetch', i)] for i in range(1, 6)]
  assert happened == [('dispatch', 1), *sum(late, []), ('fetch', 6)]


# In processes of their own: jax's profiler fails in one that has planned for
# TPUs before.
@pytest.mark.slow
def test_a_profile_holds_its_steps_and_changes_nothing(
  command, finished, tmp_path
):
  process = command('--config.profile=3-4', f'--workdir={tmp_path}')
  _, said = process.communicate()
  assert process.returncode == 0, said
  assert weights(tmp_path) == weights(finished)
  (path,) = (tmp_path / 'profile').rglob('*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  names = [event.get('name') for event in events]
  steps = [e['args']['step_num'] for e in events if e.get('name') == 'step']
  assert sorted(steps) == ['3', '4']
  for part in ('batch', 'dispatch'):
    assert names.count(part) == 2, part
  assert not (finished / 'profile').exists()


@pytest.mark.slow
def test_a_profile_is_written_where_a_run_stops_within_it(command, tmp_path):
  process = command(
    '--config.profile=2-9',
    '--config.max_skipped=3',
    '--config.optimizer.learning_rate=1e38',
    f'--workdir={tmp_path}',
  )
  _, said = process.communicate()
  assert process.returncode == 1 and 'not finite' in said, said
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


@pytest.mark.slow
def test_phases_are_timed_where_asked_for(tiny, tmp_path):
  trained(short(tiny, time_phases=True, log_every=3), tmp_path)
  for line in (each for each in lines(tmp_path) if 'loss' in each):
    phases = [line[f'seconds/{x}'] for x in ('rollout', 'teacher', 'update')]
    assert min(phases) > 0 and sum(phases) < line['seconds/step']
    for phase in ('rollout', 'teacher', 'update', 'step'):
      assert line[f'tokens_per_second/{phase}'] > 0
