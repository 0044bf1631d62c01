"""Every problem in one error, each with the value and what is allowed."""

import dataclasses
import fnmatch
import math
import pathlib
import types

import ml_collections
import pytest
from ml_collections import config_dict

from kdjax import config, schema


def good(**changes):
  c = config.default()
  c.recipe = {'name': 'sft'}
  c.student.path = 'some/dir'
  for name, value in changes.items():
    set_(c, name.replace('__', '.'), value)
  return c


def set_(c, path, value):
  *sections, name = path.split('.')
  for section in sections:
    c = c[section]
  c[name] = value


def problems(**changes):
  with pytest.raises(config.ConfigError) as error:
    config.validate(good(**changes))
  return error.value.problems


def test_the_default_is_the_schemas():
  c = good()
  view = config.validate(c)
  expected = dataclasses.replace(
    schema.Config(),
    recipe={'name': 'sft'},
    student=schema.Model(path='some/dir'),
  )
  assert view == expected
  assert dataclasses.asdict(view) == c.to_dict()


@pytest.mark.parametrize(
  'given',
  [
    'bleu,ter',
    ('bleu,ter',),
    ['bleu', 'ter'],
    ('bleu', ' ter ', ''),
    'bleu, ter,',
  ],
)
def test_names_are_taken_apart_at_commas(given):
  """On the command line '--config.eval.metrics=bleu,ter' is ('bleu,ter',)."""
  view = config.validate(good(eval__metrics=given, eval__analyses=given))
  assert view.eval.metrics == view.eval.analyses == ('bleu', 'ter')
  assert config.validate(good(eval__metrics=('',))).eval.metrics == ()
  asked = ('{input}, in short:',)
  view = config.validate(good(task__teacher_prompts=asked))
  assert view.task.teacher_prompts == asked


def test_whole_numbers_are_floats_in_tuples_too():
  view = config.validate(good(eval__temperatures=(0.5, 1)))
  assert [type(each) for each in view.eval.temperatures] == [float, float]


def test_the_view_is_frozen():
  view = config.validate(good())
  with pytest.raises(dataclasses.FrozenInstanceError):
    view.steps = 3
  with pytest.raises(dataclasses.FrozenInstanceError):
    view.optimizer.learning_rate = 3


def test_values_take_the_fields_type():
  c = good(optimizer__weight_decay=1, eval__metrics=['rouge1', 'rouge2'])
  c.student.path = config_dict.FieldReference('another/dir')
  c.recipe = ml_collections.ConfigDict(
    {'name': 'terms', 'terms': [{'loss': 'forward_kl', 'source': {'data': 1}}]}
  )
  view = config.validate(c)
  assert isinstance(view.optimizer.weight_decay, float)
  assert view.eval.metrics == ('rouge1', 'rouge2')
  assert view.student.path == 'another/dir'
  (term,) = view.recipe['terms']
  assert type(term) is dict
  assert type(term['source']) is dict


def test_a_bare_default_says_what_it_lacks():
  with pytest.raises(config.ConfigError) as error:
    config.validate(config.default())
  assert [problem.split()[0] for problem in error.value.problems] == [
    'recipe.name',
    'student.path',
  ]


@pytest.mark.parametrize(
  'changes, parts',
  [
    ({'stepz': 3}, ['unknown key stepz', 'did you mean steps?', "'seed'"]),
    (
      {'optimizer__learning_rat': 3},
      ['optimizer.learning_rat; did you mean optimizer.learning_rate?'],
    ),
    ({'qqqq': 3}, ['unknown key qqqq (known: [']),
    ({'steps': '3'}, ["steps='3': expected int"]),
    ({'steps': 3.5}, ['steps=3.5: expected int']),
    ({'steps': True}, ['steps=True: expected int']),
    ({'steps': 0}, ['steps=0: must be at least 1']),
    ({'seed': -1}, ['seed=-1: must be at least 0']),
    ({'student__scan': 1}, ['student.scan=1: expected bool']),
    ({'task__name': None}, ['task.name=None: expected str']),
    ({'task__args': 'path'}, ["task.args='path': expected Mapping"]),
    ({'eval__metrics': 7}, ['eval.metrics=7: expected a tuple of str']),
    (
      {'task__teacher_prompts': '{input}, in short'},
      ["teacher_prompts='{input}, in short': expected a tuple of str"],
    ),
    ({'eval__temperatures': ('1',)}, ['expected a tuple of float']),
    ({'eval__temperatures': (True,)}, ['expected a tuple of float']),
    ({'eval__length_edges': (5.5,)}, ['expected a tuple of int']),
    ({'eval__metrics': ('bleu', 3)}, ['expected a tuple of str']),
    ({'mesh': 8}, ['mesh=8: expected a section']),
    (
      {'optimizer__name': 'adam'},
      ["optimizer.name='adam': allowed are adafactor, adamw, sgd"],
    ),
    ({'task__on_long': 'cut'}, ['allowed are error, truncate, drop']),
    ({'optimizer__learning_rate': 0.0}, ['=0.0: must be in (0, inf)']),
    ({'optimizer__learning_rate': math.nan}, ['=nan: expected a finite']),
    ({'optimizer__weight_decay': math.inf}, ['=inf: expected a finite']),
    ({'optimizer__weight_decay': 1e39}, ['or from 1.2e-38 to 3.4e+38 in size']),
    ({'sampling__temperature': 1e-40}, ['or from 1.2e-38 to 3.4e+38 in size']),
    ({'steps': 2**31}, ['=2147483648: must be from -2147483647 to 214748364']),
    ({'steps': 10**5000}, ['steps=<int>: must be from']),
    ({'qq\nq': 1}, [r'unknown key qq\nq (known']),
    ({'task__args': {'path': pathlib.Path('a')}}, ["args.path=PosixPath('a')"]),
    ({'task__args': {'a': ({1},)}}, ['task.args.a[0]={1}: expected a number']),
    ({'student__sharding': {'embed': math.nan}}, ['sharding.embed=nan']),
    ({'optimizer__b2': 1.0}, ['optimizer.b2=1.0: must be in [0, 1)']),
    ({'optimizer__final_fraction': 2.0}, ['=2.0: must be in [0, 1]']),
    ({'optimizer__trainable': '('}, ["trainable='(' is not a valid regular"]),
    ({'sampling__top_p': 0.0}, ['sampling.top_p=0.0: must be in (0, 1]']),
    ({'generate__top_p': 1.5}, ['generate.top_p=1.5: must be in (0, 1]']),
    ({'sampling__min_p': 1.0}, ['sampling.min_p=1.0: must be in [0, 1)']),
    ({'sampling__temperature': -1.0}, ['must be at least 0']),
    ({'sampling__min_new_tokens': 25}, ['=25 exceeds task.max_response_tok']),
    ({'teacher_sampling__min_new_tokens': 25}, ['teacher_sampling.min_new_t']),
    ({'student__dropout': 1.0}, ['student.dropout=1.0: must be in [0, 1)']),
    ({'recipe': {}}, ['recipe.name is missing']),
    ({'student__path': ''}, ['student.path or student.config must be given']),
    ({'student__config': {'a': 1}}, ['exclude each other']),
    ({'micro_batch_size': 5}, ['=5 does not divide batch_size=32']),
    ({'eval__beams': 4, 'eval__temperature': 0.7}, ['beam search is greedy']),
    (
      {'generate__beams': 4, 'generate__temperature': 1.0},
      ['generate.beams=4'],
    ),
    (
      {'optimizer__schedule': 'cosine', 'optimizer__warmup_steps': 1000},
      ['warmup_steps=1000 leaves none of steps=1000'],
    ),
    ({'profile': 'all'}, ["profile='all': expected a step, such as '100',"]),
    ({'profile': '5-3'}, ["profile='5-3': expected a step"]),
    ({'profile': '0'}, ["profile='0': expected a step"]),
    ({'profile': '3-'}, ["profile='3-': expected a step"]),
    ({'profile': '999-1001'}, ["='999-1001' lies beyond steps=1000"]),
    ({'profile': 3}, ['profile=3: expected str']),
    ({'checkpoint__export': 'best'}, ["'best' needs eval.every above 0"]),
    ({'mesh__fsdp': 0}, ["'fsdp': 0", 'must be positive, or -1']),
    ({'mesh__fsdp': -1}, ["'data': -1, 'fsdp': -1", 'one size may be -1']),
  ],
)
def test_problems_name_the_value_and_what_is_allowed(changes, parts):
  (problem,) = problems(**changes)
  for part in parts:
    assert part in problem


def test_every_problem_is_listed_once():
  found = problems(
    stepz=1,
    task__nme='x',
    steps='many',
    optimizer__name='adam',
    batch_size=0,
    sampling__top_p=2.0,
    student__path='',
    eval__beams=2,
    eval__temperature=1.0,
  )
  assert len(found) == 8
  for part in (
    'stepz', 'task.nme', "steps='many'", "'adam'", 'batch_size=0',
    'sampling.top_p=2.0', 'student.path or', 'eval.beams=2',
  ):  # fmt: skip
    assert sum(part in problem for problem in found) == 1, part


def test_the_error_counts_and_lists():
  with pytest.raises(config.ConfigError) as error:
    config.validate(good(steps=0), ['the teacher is away'])
  lines = str(error.value).splitlines()
  assert lines[0] == 'the config has 2 problem(s):'
  assert [line.strip() for line in lines[1:]] == [
    'steps=0: must be at least 1',
    'the teacher is away',
  ]
  assert isinstance(error.value, ValueError)


def test_check_gives_a_view_of_what_is_right():
  view, found = config.check(good(steps='many', batch_size=8, stepz=1))
  assert view.steps == schema.Config().steps
  assert view.batch_size == 8
  assert len(found) == 2


def test_harmless_keys_exist():
  fields = dataclasses.asdict(schema.Config())
  keys = [
    f'{name}.{key}' if key else name
    for name, value in fields.items()
    for key in (value if isinstance(value, dict) else [''])
  ]
  for pattern in config.HARMLESS:
    assert fnmatch.filter(keys, pattern), pattern


def test_arguments_take_the_types_of_their_defaults():
  parse = lambda arg: config.parse_arg(
    arg, embedded=False, lam=0.5, layers=2, student='small'
  )
  expected = {'embedded': False, 'lam': 0.5, 'layers': 2, 'student': 'small'}
  assert parse(None) == parse('') == types.SimpleNamespace(**expected)
  found = parse('embedded,lam=1,layers=3,student=a=b')
  assert vars(found) == {
    'embedded': True,
    'lam': 1.0,
    'layers': 3,
    'student': 'a=b',
  }
  assert isinstance(found.lam, float)
  assert parse('embedded=true').embedded
  assert not parse('embedded=False').embedded


@pytest.mark.parametrize(
  'arg, message',
  [
    ('embeded', r"'embeded'; known are \['embedded', 'layers', 'student'\]"),
    ('layers=2.5', "'layers=2.5': expected layers=, then int"),
    ('layers', "'layers': expected layers=, then int"),
    ('student', "'student': expected student=, then str"),
    ('embedded=yes', "'embedded=yes': expected true or false"),
  ],
)
def test_wrong_arguments_are_refused(arg, message):
  with pytest.raises(ValueError, match=message):
    config.parse_arg(arg, embedded=False, layers=2, student='small')


# Further tasks.


def test_further_tasks_take_after_the_main_one():
  c = good(
    task__vocabulary='g2p',
    task__max_prompt_tokens=7,
    task__max_response_tokens=5,
    task__on_long='drop',
    task__prompt_padding='left',
    task__limit=3,
    task__args={'path': 'a'},
    task__teacher_responses='online',
    tasks={
      'heir': {'name': 'text'},
      'own': {
        'name': 'text',
        'max_response_tokens': 9,
        'prompt_padding': 'right',
        'vocabulary': 'debsum',
      },
    },
  )
  view = config.validate(c)
  heir = schema.Task(
    name='text',
    vocabulary='g2p',
    max_prompt_tokens=7,
    max_response_tokens=5,
    on_long='drop',
    prompt_padding='left',
  )
  assert view.tasks['heir'] == heir
  assert view.tasks['own'] == dataclasses.replace(
    heir,
    max_response_tokens=9,
    prompt_padding='right',
    vocabulary='debsum',
  )


def test_a_main_task_that_says_nothing_leaves_its_defaults():
  view, found = config.check(
    ml_collections.ConfigDict({'tasks': {'a': {'name': 'text'}}})
  )
  assert view.tasks == {'a': schema.Task(name='text')}
  # The recipe and the student alone.
  assert len(found) == 2


@pytest.mark.parametrize(
  'tasks, part',
  [
    ('text', "tasks='text': expected named sections"),
    ({'a': 'text'}, "tasks.a='text': expected a section"),
    ({'a': {'args': {}}}, 'tasks.a.name is missing: it names a task'),
    (
      {'a': {'name': 'text', 'max_prompt_token': 3}},
      'unknown key tasks.a.max_prompt_token; did you mean tasks.a.max_prompt_t',
    ),
    (
      {'a': {'name': 'text', 'on_long': 'cut'}},
      "tasks.a.on_long='cut': allowed are error, truncate, drop",
    ),
    (
      {'a': {'name': 'text', 'limit': -1}},
      'tasks.a.limit=-1: must be at least 0',
    ),
  ],
)
def test_problems_of_further_tasks_name_them(tasks, part):
  (problem,) = problems(tasks=tasks)
  assert part in problem


@pytest.mark.parametrize(
  'changes, part',
  [
    ({'teacher_mix': 1.0}, 'teacher_mix=1.0: must be in [0, 1)'),
    ({'behaviour_sync': -1}, 'behaviour_sync=-1: must be at least 0'),
    ({'updates_per_rollout': 0}, 'updates_per_rollout=0: must be at least 1'),
    (
      {'sampling__samples_per_prompt': 0},
      'sampling.samples_per_prompt=0: must be at least 1',
    ),
    (
      {'teacher_sampling__top_p': 0.0},
      'teacher_sampling.top_p=0.0: must be in (0, 1]',
    ),
    (
      {'auxiliary_optimizer__name': 'adam'},
      "auxiliary_optimizer.name='adam': allowed are",
    ),
    (
      {'reward__path': 'a', 'reward__config': {'a': 1}},
      'reward.path and reward.config exclude each other',
    ),
    (
      {'reference__path': 'a', 'reference__config': {'a': 1}},
      'reference.path and reference.config exclude each other',
    ),
    ({'student__layers': 3}, 'student.layers=3: expected Mapping'),
  ],
)
def test_problems_of_rollouts_and_judges(changes, part):
  (problem,) = problems(**changes)
  assert part in problem


def test_a_wrong_main_task_is_reported_once():
  assert problems(task=8) == ('task=8: expected a section',)
  found = problems(task__max_prompt_tokens='x', tasks={'a': {'name': 'text'}})
  assert len(found) == 1
