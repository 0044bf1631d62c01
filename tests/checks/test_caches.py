"""Configs whose teacher is a cache of log-probabilities."""

import pytest

from kdjax import checks

# What a run without a teacher isn't measured by.
ALONE = {
  'teacher__config': {},
  'checkpoint__best_metric': 'exact_match',
  'checkpoint__best_mode': 'max',
}
CACHE = {
  'task__teacher_responses': 'some/responses',
  'task__teacher_logprobs': 'cached',
}
AKL = {'name': 'akl', 'source': 'teacher'}


def terms(*more, **changes):
  """A recipe of one term that a cache suffices for, but for `changes`."""
  term = {'loss': 'reverse_kl', 'source': 'teacher', **changes}
  return {'name': 'terms', 'terms': [term, *more]}


def test_a_cache_stands_for_the_teacher(problems, tiny):
  assert checks.cached(checks.validate(tiny(**ALONE, **CACHE, recipe=AKL)))
  live = {**CACHE, 'task__teacher_logprobs': 'live'}
  found = problems(tiny(**ALONE, **live, recipe=AKL))
  assert 'give teacher.path or teacher.config' in found
  # Beside one it is compared with in evaluations alone.
  checks.validate(tiny(**CACHE, recipe=AKL))


def test_a_reward_still_reads_the_teacher(problems, tiny):
  rewarded = {
    'loss': 'policy_gradient',
    'source': 'student',
    'reward': 'teacher_logprob',
  }
  recipe = terms(rewarded)
  found = problems(tiny(**ALONE, **CACHE, recipe=recipe))
  assert 'give teacher.path or teacher.config' in found
  checks.validate(tiny(**CACHE, recipe=recipe))


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'source': 'data'}, "compares with the teacher on ['data'], but only"),
    ({'source': 'student'}, "on ['student'], but only the cached responses"),
    (
      {'source': {'teacher': 0.5, 'data': 0.5}},
      "on ['data', 'teacher'], but only the cached responses",
    ),
    ({'loss': 'engine'}, 'engine reads more of the teacher than'),
    ({'loss': 'exact_skew_forward_kl'}, 'reads more of the teacher than'),
    ({'loss': 'hidden_distance'}, 'hidden_distance reads more of the teacher'),
    (
      {'loss_args': {'temperature': 2.0}},
      'loss_args.temperature=2.0, but the cached log-probabilities are at 1',
    ),
  ],
  ids=lambda each: str(each)[:30],
)
def test_what_a_cache_cannot_give(problems, tiny, changes, says):
  found = problems(tiny(**ALONE, **CACHE, recipe=terms(**changes)))
  assert says in found
  assert "keep the teacher, with teacher_logprobs='live'" in found


def test_all_problems_come_at_once(problems, tiny):
  recipe = terms(source='student', loss='engine', loss_args={'temperature': 2})
  online = {**CACHE, 'task__teacher_responses': 'online'}
  found = problems(tiny(**ALONE, **online, recipe=recipe)).splitlines()
  for says in (
    "task.teacher_responses='online': name the directory that",
    "on ['student'], but",
    'engine reads more',
    'temperature=2',
    "teacher_responses='online' reads the teacher",
  ):
    assert sum(says in line for line in found) == 1, says


def test_a_cache_that_nothing_reads_is_named(problems, tiny):
  found = problems(tiny(**CACHE, recipe={'name': 'seqkd'}))
  assert "task.teacher_logprobs='cached' does nothing: recipe 'seqkd'" in found
  # Nor do other modes read one.
  for mode in ('evaluate', 'generate'):
    checks.validate(tiny(**CACHE, recipe={'name': 'seqkd'}), mode)


def test_further_tasks_have_caches_of_their_own(problems, tiny):
  part = tiny().task.to_dict()
  gold = {'loss': 'cross_entropy', 'source': 'data'}
  recipe = terms(gold, task='more')
  cached = {'teacher_responses': 'some/responses', 'teacher_logprobs': 'cached'}
  more = lambda **changes: {'tasks': {'more': {**part, **changes}}}
  checks.validate(tiny(**ALONE, recipe=recipe, **more(**cached)))
  online = {**cached, 'teacher_responses': 'online'}
  found = problems(tiny(recipe=recipe, **more(**online)))
  assert "tasks.more.teacher_logprobs='cached', but tasks.more." in found
