"""What a run is fed: its tasks, their responses, and where it goes on."""

import json

import jax
import numpy as np
import pytest

from kdjax import checks, feed, recipes, step, types
from kdjax.data import tasks, vocabularies

CORPUS = {'name': 'lm', 'loss': 'cross_entropy', 'task': 'corpus'}


def given(tiny, **overrides):
  """A checked config, and what it says that its run learns from."""
  c = checks.validate(tiny(**overrides))
  args = dict(c.recipe)
  return c, recipes.build(args.pop('name'), **args)


def iterator(tiny, **overrides):
  c, goal = given(tiny, **overrides)
  main = tasks.get(c.task.name, **c.task.args)
  vocabulary = vocabularies.load(c.task.vocabulary)
  return feed.train_iterator(c, main, goal, vocabulary)


@pytest.fixture
def columns(tiny):
  """Returns a function: columns to the arguments of a task of them."""

  def args(**changes):
    found = {**tiny().task.args.to_dict(), **changes}
    return {k: v for k, v in found.items() if v is not None}

  return args


@pytest.fixture
def joint(columns):
  """Overrides: a main task, another that is read and one that isn't."""
  swapped = columns(input='sounds', target='spelling')
  return {
    'recipe': {
      'name': 'terms',
      'terms': [{'loss': 'cross_entropy'}, CORPUS],
    },
    'teacher__config': {},
    'checkpoint__best_metric': 'exact_match',
    'checkpoint__best_mode': 'max',
    'tasks': {
      'corpus': {'name': 'file', 'args': swapped, 'max_response_tokens': 12},
      'idle': {'name': 'file', 'args': swapped},
    },
  }


def assert_batches(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_one_task_is_a_batch_alone(tiny):
  batch = next(iterator(tiny))
  assert batch.tasks == {} and set(batch.responses) == {'data'}
  assert batch.prompt.tokens.shape == (8, 8)
  assert batch.references is None


def test_further_tasks_come_inside_with_the_main_tasks_lengths(tiny, joint):
  batch = next(iterator(tiny, **joint))
  assert set(batch.tasks) == {'corpus'}
  other = batch.tasks['corpus']
  assert batch.prompt.tokens.shape == other.prompt.tokens.shape == (8, 8)
  assert batch.responses['data'].tokens.shape == (8, 6)
  assert other.responses['data'].tokens.shape == (8, 12)
  # They are in the order of the same seed, the other way round.
  np.testing.assert_array_equal(batch.example_id, other.example_id)
  assert np.any(batch.prompt.tokens != other.prompt.tokens)


def test_joint_batches_go_on_exactly_where_they_were(tiny, joint):
  first = iterator(tiny, **joint)
  assert iter(first) is first
  for _ in range(9):  # Into the second epoch of eight batches.
    next(first)
  position = json.loads(json.dumps(first.get_state()))
  assert set(position) == {'', 'corpus'}
  expected = [next(first) for _ in range(9)]
  for other in (iterator(tiny, **joint), first):
    other.set_state(position)
    for each in expected:
      assert_batches(next(other), each)


def test_each_task_has_a_position_of_its_own(tiny, joint):
  made = iterator(tiny, **joint)
  start = made.get_state()
  first = next(made)
  later = made.get_state()
  made.set_state({**later, 'corpus': start['corpus']})
  mixed = next(made)
  assert_batches(mixed.tasks['corpus'], first.tasks['corpus'])
  assert np.any(mixed.example_id != first.example_id)


def test_references_come_where_a_reward_reads_texts(tiny):
  for reward, present in (('exact_match', True), ('induced', False)):
    batch = next(iterator(tiny, recipe={'name': 'reinforce', 'reward': reward}))
    assert (batch.references is not None) == present
    if present:
      assert len(batch.references) == 8


@pytest.mark.parametrize('where', ['task', 'corpus'])
def test_gold_responses_that_are_missing_are_asked_for(
  tiny, joint, columns, where
):
  unlabelled = columns(target=None)
  options = dict(joint)
  if where == 'task':
    options['task__args'] = unlabelled
  else:
    options['tasks'] = {'corpus': {'name': 'file', 'args': unlabelled}}
  column = {'task': 'task.args.target', 'corpus': 'tasks.corpus.args.target'}
  with pytest.raises(ValueError, match="'terms' learns from gold") as error:
    iterator(tiny, **options)
  assert f'column in {column[where]},' in str(error.value)


def test_unlabelled_prompts_do_where_the_student_answers(tiny, columns):
  batch = next(
    iterator(
      tiny,
      task__args=columns(target=None),
      recipe={'name': 'on_policy_kd'},
      teacher_mix=0.0,
    )
  )
  assert batch.responses == {}


def test_rejected_responses_that_are_missing_are_asked_for(tiny, columns):
  with pytest.raises(
    ValueError,
    match=r"'dpo' learns from pairs.* column in task.args.rejected of the task",
  ):
    iterator(tiny, recipe={'name': 'dpo'})
  args = columns(rejected='spelling')
  batch = next(iterator(tiny, recipe={'name': 'dpo'}, task__args=args))
  assert set(batch.responses) == {'data', 'rejected'}


def test_tasks_whose_teacher_answers_online_are_told_from_others(tiny, columns):
  labels = {'name': 'file', 'args': columns()}
  online = {**labels, 'teacher_responses': 'online'}

  def found(recipe, main='', other=labels):
    return feed.online(
      *given(
        tiny,
        recipe={'name': recipe},
        task__teacher_responses=main,
        tasks={'unlabelled': other},
      )
    )

  assert found('seqkd', main='online') == ['']
  assert found('seqkd', main='elsewhere') == []
  assert found('self_training', other=online) == ['unlabelled']
  # Gold alone is read of the main task, whatever it says.
  assert found('self_training', main='online', other=online) == ['unlabelled']
  assert found('gkd', main='online', other=online) == []


@pytest.mark.parametrize('longer', [0, 12])
def test_prompts_are_of_the_shapes_that_are_told(tiny, longer):
  options = {
    'task__teacher_prompts': ('say {input}', '{input} please'),
    'task__max_teacher_prompt_tokens': longer,
    'task__on_long': 'truncate',
  }
  for changes in ({}, options):
    c, _ = given(tiny, **changes)
    batch = next(iterator(tiny, **changes))
    found = types.Batch(
      batch.prompt, batch.teacher_prompts, example_id=batch.example_id
    )
    told = feed.prompts(c.task)
    jax.tree.map(assert_same_kind, jax.tree.map(lambda x: x[:1], found), told)
    # A run makes its memories of what is told, and fills them with batches.
    memories = (step.memory(3, x, 5) for x in (batch, told))
    jax.tree.map(assert_same_kind, *memories)


def assert_same_kind(x, told):
  assert (x.shape, x.dtype) == (told.shape, told.dtype)


def test_an_online_teachers_responses_are_not_looked_for(tiny):
  options = {'recipe': {'name': 'seqkd'}}
  batch = next(iterator(tiny, **options, task__teacher_responses='online'))
  assert 'teacher' not in batch.responses
  with pytest.raises(FileNotFoundError, match='elsewhere'):
    iterator(tiny, **options, task__teacher_responses='elsewhere')


@pytest.mark.parametrize(
  'limits, size', [((0, 0), 64), ((5, 0), 5), ((0, 7), 7), ((5, 7), 5)]
)
def test_the_smaller_of_two_limits_holds(tiny, limits, size):
  c, _ = given(tiny, task__limit=limits[1])
  main = tasks.get(c.task.name, **c.task.args)
  found = feed.examples(
    c.task, main, 'train', vocabularies.load('g2p'), limits[0]
  )
  assert len(found) == size


@pytest.mark.parametrize(
  'split, test_split, sizes',
  [
    ('validation', 'train', {'validation': 3, 'train': 64}),
    ('train', 'test', {'train': 64, 'test': 5}),
    ('test', 'test', {'test': 5, 'train': 64}),
  ],
)
def test_a_split_of_several_ends_is_counted_whole(
  tiny, split, test_split, sizes
):
  c, goal = given(
    tiny,
    eval__split=split,
    eval__examples=3,
    eval__test_split=test_split,
    eval__test_examples=5,
  )
  main = tasks.get(c.task.name, **c.task.args)
  found = feed.counts(c, main, goal, vocabularies.load('g2p'))
  assert {k: each['examples'] for k, each in found.items()} == sizes
  assert [k for k, each in found.items() if 'sha256' in each] == ['train']


def test_rewards_by_gold_need_some(tiny, columns):
  policy = {
    'loss': 'policy_gradient',
    'source': 'student',
    'reward': 'exact_match',
    'task': 'unlabelled',
  }
  overrides = {
    'recipe': {'name': 'terms', 'terms': [policy]},
    'tasks': {'unlabelled': {'name': 'file', 'args': columns(target=None)}},
    'checkpoint__best_metric': 'exact_match',
    'checkpoint__best_mode': 'max',
  }
  with pytest.raises(ValueError, match="'exact_match' compares with gold"):
    iterator(tiny, **overrides)
  policy['reward'] = 'induced'
  assert next(iterator(tiny, **overrides)).tasks['unlabelled'].responses == {}
