"""Whole runs of what recipes ask of a trainer, and that kills don't show."""

import json
import os
import signal

import numpy as np
import pytest

from kdjax import build, checks, models, roles, train

QUICK = {
  'steps': 4,
  'log_every': 1,
  'eval__every': 0,
  'eval__test_examples': 4,
  'checkpoint__every': 2,
  'checkpoint__export': 'last',
  'checkpoint__best_metric': '',
  'checkpoint__best_mode': 'max',
}


@pytest.fixture(scope='module')
def quick(tiny):
  """Returns a function of overrides to a valid config of four steps."""
  return lambda **overrides: checks.validate(tiny(**QUICK, **overrides))


def logged(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def weights(workdir):
  return (workdir / 'student' / 'model.safetensors').read_bytes()


def stale(tiny_data):
  """All that a state can hold but replays: LLMR beside adversarial layers.

  A behaviour policy, parameters of a term's own, a second task, several updates
  on each rollout, rollouts that wait for the next step, and a teacher that
  answers online, from what the student drafts.
  """
  return {
    'recipe': {
      'name': 'terms',
      'terms': (
        {
          'loss': 'weighted_reinforce',
          'source': 'student',
          'task': 'unlabelled',
          'reward': 'induced',
          'finished_only': True,
          'loss_args': {'reward_scale': 10.0, 'return_clip': 1.0},
        },
        {'loss': 'adversarial', 'loss_args': {'strategy': 'last'}},
        {'loss': 'cross_entropy', 'source': 'teacher'},
      ),
    },
    'tasks': {
      'unlabelled': {
        'name': 'file',
        'args': {'path': f'{tiny_data}/{{split}}.jsonl', 'input': 'spelling'},
      }
    },
    'behaviour_sync': 3,
    'rollout_ahead': True,
    'updates_per_rollout': 2,
    'task__teacher_responses': 'online',
    'teacher_sampling__draft_tokens': 2,
  }


def replayed(tiny_data):
  """Samples that are kept, of two tasks, in a ring that a kill finds half full.

  They are sampled ahead of the step that keeps and learns from them.
  """
  args = {'path': f'{tiny_data}/{{split}}.jsonl', 'input': 'spelling'}
  mixed = {'student': 0.25, 'replay': 0.5, 'data': 'rest'}
  terms = (
    {'name': 'main', 'loss': 'generalized_jsd', 'source': mixed},
    {'name': 'now', 'loss': 'reverse_kl', 'source': 'student'},
    {'name': 'then', 'loss': 'reverse_kl', 'source': 'replay'},
  )
  other = {'task': 'unlabelled'}
  return {
    'recipe': {
      'name': 'terms',
      'terms': (terms[0], *({**term, **other} for term in terms[1:])),
    },
    'tasks': {'unlabelled': {'name': 'file', 'args': args}},
    'replay_size': 20,
    'rollout_ahead': True,
    'updates_per_rollout': 2,
    'task__teacher_prompts': ('{input} please',),
    'task__max_teacher_prompt_tokens': 12,
  }


def disturbed(config, tmp_path, monkeypatch):
  """Runs a config, and again with a kill in between; returns the workdirs."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  train.train(config, str(whole))
  step_once = train.Trainer._step

  def interrupted(self, done, current):
    if done == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return step_once(self, done, current)

  with monkeypatch.context() as patch:
    patch.setattr(train.Trainer, '_step', interrupted)
    with pytest.raises(SystemExit):
      train.train(config, str(killed))
  train.train(config, str(killed))
  assert weights(killed) == weights(whole)
  assert all(line['skipped'] == 0 for line in logged(killed))
  return whole, killed


@pytest.mark.slow
def test_a_killed_run_ends_where_an_undisturbed_one_ends(
  quick, tiny_data, tmp_path, monkeypatch
):
  config = quick(**stale(tiny_data))
  folders = disturbed(config, tmp_path, monkeypatch)
  own = [
    (folder / 'student' / roles.AUXILIARY).read_bytes() for folder in folders
  ]
  assert own[0] == own[1]
  for line in logged(folders[1]):
    assert np.isfinite(line['reward/induced'])
    assert 0 < line['rollout/teacher/accepted'] <= 1


@pytest.mark.slow
def test_a_killed_run_replays_what_an_undisturbed_one_replays(
  quick, tiny_data, tmp_path, monkeypatch
):
  config = quick(**replayed(tiny_data))
  whole, killed = disturbed(config, tmp_path, monkeypatch)
  # Of each step 8 rows, of which the ring holds 20.
  filled = [line['replay/filled'] for line in logged(killed)]
  assert filled == [8, 16, 20, 20]
  for one, other in zip(logged(killed), logged(whole), strict=True):
    names = [name for name in one if name.startswith(('loss', 'replay'))]
    assert [one[name] for name in names] == [other[name] for name in names]


@pytest.mark.slow
def test_decoder_only_models_are_trained_and_left_behind(quick, tmp_path):
  causal = {
    'model_type': 'llama',
    'hidden_size': 16,
    'intermediate_size': 32,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
  }
  both = {
    f'{role}__config': {**causal, 'num_hidden_layers': layers}
    for role, layers in (('student', 1), ('teacher', 2))
  }
  config = quick(recipe={'name': 'gkd', 'lam': 0.5}, student__dropout=0, **both)
  train.train(config, str(tmp_path))
  assert np.isfinite(logged(tmp_path)[-1]['loss'])
  model, _ = models.from_pretrained(tmp_path / 'student')
  assert type(model).__name__ == 'DecoderOnly'


@pytest.mark.slow
def test_a_reward_model_is_trained_and_then_obeyed(quick, tmp_path):
  fitted = quick(
    recipe={'name': 'reward_regression', 'reward': 'phoneme_error_rate'},
    task__teacher_responses='online',
  )
  train.train(fitted, str(tmp_path / 'reward'))
  learned = quick(
    recipe={'name': 'reinforce', 'reward': 'learned', 'baseline': 'mean'},
    reward={'path': str(tmp_path / 'reward' / 'student')},
  )
  train.train(learned, str(tmp_path / 'policy'))
  first, *_ = logged(tmp_path / 'policy')
  assert np.isfinite(first['reward/learned']) and first['reward/learned']
  assert first['rollout/length'] > 0


@pytest.mark.slow
def test_groups_are_rewarded_by_texts_and_held_near_the_start(quick, tmp_path):
  config = quick(
    recipe={'name': 'grpo', 'reward': 'phoneme_error_rate'},
    sampling__samples_per_prompt=4,
    updates_per_rollout=2,
    micro_batch_size=4,
  )
  train.train(config, str(tmp_path))
  first, *_, last = logged(tmp_path)
  # An error rate counts as a loss.
  assert first['reward/phoneme_error_rate'] < 0
  # At first the policy is the reference, but for the second of the updates.
  assert 0 <= first['loss/kl'] < last['loss/kl']


@pytest.mark.slow
def test_pairs_are_read_from_a_file(quick, tiny_data, tmp_path):
  rows = [
    json.loads(line)
    for line in (tiny_data / 'train.jsonl').read_text().splitlines()
  ]
  for split in ('train', 'validation', 'test'):
    lines = [
      json.dumps({**row, 'worse': ' '.join(row['sounds'].split()[::-1])})
      for row in rows
    ]
    (tmp_path / f'{split}.jsonl').write_text('\n'.join(lines))
  args = {
    'path': f'{tmp_path}/{{split}}.jsonl',
    'input': 'spelling',
    'target': 'sounds',
    'metrics': ('exact_match',),
  }
  config = quick(
    recipe={'name': 'dpo'}, teacher__config={}, student__dropout=0.0,
    task__args={**args, 'rejected': 'worse'},
  )  # fmt: skip
  train.train(config, str(tmp_path / 'run'))
  first, *_, last = logged(tmp_path / 'run')
  assert first['loss/dpo'] == pytest.approx(np.log(2), rel=1e-5)
  assert last['dpo/reward_margin'] > first['dpo/reward_margin']

  with pytest.raises(ValueError, match='name their column in task.args.reject'):
    quick(recipe={'name': 'dpo'}, teacher__config={}, task__args=args)


@pytest.mark.slow
def test_a_student_of_copied_layers_is_distilled(quick, tiny, tmp_path):
  wide = {**tiny().teacher.config.to_dict(), 'num_layers': 3}
  deep = build.build(quick(teacher__config=wide), wanted=('teacher',))
  models.save_pretrained(
    tmp_path / 'teacher', deep.teacher, deep.teacher_params
  )
  path = {'path': str(tmp_path / 'teacher'), 'config': {}}
  student = {**tiny().student.to_dict(), **path}
  config = quick(
    recipe={'name': 'pre_distillation', 'stacks': ('encoder',)},
    student={**student, 'layers': {'encoder': 1}},
    teacher={**tiny().teacher.to_dict(), **path},
  )
  run = build.build(config)
  assert run.student.config.encoder_layers == 1
  train.train(config, str(tmp_path / 'run'))
  assert all(
    line['loss/hidden_encoder'] > 0 for line in logged(tmp_path / 'run')
  )


def test_layers_that_do_not_match_are_said_before_the_run(
  quick, tiny, tmp_path
):
  deep = {**tiny().teacher.config.to_dict(), 'num_decoder_layers': 2}
  config = quick(
    recipe={'name': 'layer_matching', 'strategy': ''}, teacher__config=deep
  )
  with pytest.raises(ValueError, match='set loss_args.strategy to one of'):
    train.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_rewards_that_fail_are_said_before_the_run(
  quick, tmp_path, monkeypatch
):
  (tmp_path / 'own_reward.py').write_text(
    'def broken(prompts, responses, references):\n'
    "  return [float('nan')] * len(responses)\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  config = quick(recipe={'name': 'reinforce', 'reward': 'own_reward:broken'})
  with pytest.raises(
    ValueError, match="'own_reward:broken' is nan for example"
  ):
    train.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
