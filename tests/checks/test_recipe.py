"""What recipes need of the rest of a config."""

import pytest

from kdjax import checks


def test_recipes_say_what_they_lack(problems, tiny):
  assert 'teacher.path' in problems(tiny(teacher__config={}))
  found = problems(tiny(recipe={'name': 'seqkd'}))
  assert 'teacher_responses' in found and '--mode=generate' in found
  # To write them, or to score models, a config needs none.
  checks.validate(tiny(recipe={'name': 'seqkd'}), 'generate')
  checks.validate(tiny(teacher__config={}), 'evaluate')
  found = problems(tiny(teacher__config={}), 'generate')
  assert "generate.model='teacher'" in found


def test_a_name_that_is_none_is_no_name(tiny):
  for mode in ('train', 'evaluate', 'generate', 'plan'):
    with pytest.raises(ValueError, match='recipe.name=None; known recipes'):
      checks.validate(tiny(recipe={'name': None}), mode)


def reinforce(reward, **args):
  return {'name': 'reinforce', 'reward': reward, **args}


def test_rewards_must_be_known(problems, tiny):
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
  assert "'no_such_module:f' cannot be imported: ModuleNotFoundError: " in found
  for reward in ('bleu', 'induced', 'brevity', 'math:fsum'):
    checks.validate(tiny(recipe=reinforce(reward)))
  # Rewards that samples are ranked by are looked up, too.
  ranked = {'name': 'ranking', 'by': 'blue'}
  found = problems(tiny(recipe=ranked, sampling__samples_per_prompt=2))
  assert "reward='blue': known are" in found


def test_tasks_that_terms_read_must_be_defined(problems, tiny):
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


@pytest.mark.parametrize(
  'recipe, terms',
  [
    ({'name': 'grpo', 'reward': 'bleu', 'kl_weight': 0.0}, ['grpo']),
    (reinforce('bleu', baseline='group_mean', kl_weight=0.0), ['reward']),
    ({'name': 'ranking'}, ['ranking']),
  ],
)
def test_what_compares_samples_needs_several(problems, tiny, recipe, terms):
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
def test_what_takes_one_response_is_given_one(problems, tiny, recipe, terms):
  options = {'recipe': recipe, 'task__teacher_responses': 'online'}
  found = problems(tiny(**options, sampling__samples_per_prompt=3))
  assert f'terms {terms} of recipe' in found
  assert 'sampling.samples_per_prompt=3: set it to 1' in found
  checks.validate(tiny(**options))


def test_greedy_responses_are_no_samples_of_a_policy(problems, tiny):
  cold = {'sampling__temperature': 0.0}
  for importance in (False, True):
    recipe = reinforce('bleu', importance=importance)
    found = problems(tiny(recipe=recipe, **cold))
    assert 'sampling.temperature=0: greedy responses are no samples' in found
    assert "which recipe 'reinforce' learns from: set it to 1" in found
    checks.validate(tiny(recipe=recipe))
  # A divergence needs no samples.
  checks.validate(tiny(recipe={'name': 'on_policy_kd'}, **cold))


def test_models_that_judge_must_be_given(problems, tiny):
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


def test_who_samples_from_a_teacher_needs_one(problems, tiny):
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


def test_samples_of_another_policy_are_not_taken_for_its_own(problems, tiny):
  recipe = {'name': 'gkd_rl', 'reward': 'exact_match'}
  for setting in (
    {'behaviour_sync': 5},
    {'rollout_ahead': True},
    {'teacher_mix': 0.2},
    {'updates_per_rollout': 2},
    {'sampling__temperature': 0.5},
    {'sampling__top_k': 2},
    {'sampling__top_p': 0.9},
    {'sampling__min_p': 0.1},
    {'sampling__min_new_tokens': 1},
  ):
    found = problems(tiny(recipe=recipe, **setting))
    name = next(iter(setting)).replace('__', '.')
    assert f"['{name}'] sample from another" in found
    checks.validate(tiny(recipe={**recipe, 'importance': True}, **setting))


def test_settings_that_do_nothing_are_refused(problems, tiny):
  found = problems(
    tiny(
      recipe={'name': 'supervised_kd'},
      behaviour_sync=5,
      sampling__samples_per_prompt=2,
    )
  )
  assert "['behaviour_sync', 'sampling.samples_per_prompt'] do nothing" in found


def test_rollouts_ahead_are_as_many_at_every_step(problems, tiny):
  scheduled = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 9}
  for changed in ({'lam': scheduled}, {'lam': 0.5, 'coin': 'batch'}):
    recipe = {'name': 'gkd', **changed}
    found = problems(tiny(recipe=recipe, rollout_ahead=True))
    assert 'rollout_ahead=True' in found
  checks.validate(tiny(recipe={'name': 'gkd', 'lam': 0.5}, rollout_ahead=True))


def test_layers_are_matched_on_one_prompt(problems, tiny):
  found = problems(
    tiny(
      recipe={'name': 'layer_matching'}, task__teacher_prompts=('Say {input}',)
    )
  )
  assert "recipe 'layer_matching' matches layers" in found


def test_responses_that_a_task_does_not_hold_are_asked_for(problems, tiny):
  found = problems(tiny(recipe={'name': 'dpo'}))
  assert "'dpo' learns from pairs, but the task 'file' has no rejected" in found
  checks.validate(tiny(recipe={'name': 'dpo'}, task__args__rejected='spelling'))
  unlabelled = {'task__args__target': None}
  found = problems(tiny(recipe={'name': 'sft'}, **unlabelled))
  assert "'sft' learns from gold responses" in found
  assert 'name their column in task.args.target' in found
  found = problems(tiny(recipe=reinforce('bleu'), **unlabelled))
  assert "the reward 'bleu' compares with gold responses" in found
