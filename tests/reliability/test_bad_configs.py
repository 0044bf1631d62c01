"""Promise 10: a config is a run, or one message that lists what is wrong."""

import dataclasses
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import pytest
from hypothesis import strategies as st
from jax._src import xla_bridge
from ml_collections import config_dict

from kdjax import checks, config, recipes
from kdjax.plan import job
from tests.reliability import config_trees, recipe_trees

ROOT = pathlib.Path(__file__).parents[2]
MODES = ('train', 'evaluate', 'generate', 'plan')


@pytest.fixture(scope='module')
def bases(tiny):
  """The configs that all others are changes of."""
  found = [config.default(), tiny()]
  for path in sorted((ROOT / 'configs').glob('*.py')):
    if 'def get_config' in path.read_text():
      make = runpy.run_path(str(path))['get_config']
      found.append(make())
      if 'embedded=' in path.read_text():
        found.append(make('embedded'))
  return found


def _touched(*unused):
  raise AssertionError('a device was touched')


def outcome(c, mode):
  """Returns the view, or the problems of one error that is as long as they.

  Whatever asks JAX for a device fails, also where it has them already.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(xla_bridge, 'get_backend', _touched)
    patch.setattr(xla_bridge, 'backends', _touched)
    try:
      return checks.validate(c, mode)
    except config.ConfigError as caught:
      error = caught
  first, *lines = str(error).splitlines()
  assert first == f'the config has {len(lines)} problem(s):'
  assert [f'  {each}' for each in error.problems] == lines
  assert all(line.isprintable() and len(line) < 5000 for line in lines)
  return error.problems


def test_any_tree_is_a_config_or_one_error(bases, fuzz):
  def check(base, edits, mode):
    view = outcome(config_trees.changed(base, edits), mode)
    if isinstance(view, tuple):
      assert view
      return
    # What is written into the workdir, and read again by who resumes.
    fields = dataclasses.asdict(view)
    assert json.loads(json.dumps(fields)) == json.loads(json.dumps(fields))
    args = dict(view.recipe)
    goal = recipes.build(args.pop('name'), **args)
    for step in (0, view.steps - 1):
      assert goal.rollout_rows(step, view.batch_size, view.seed) >= 0

  fuzz(
    10,
    'trees of any values',
    check,
    st.sampled_from(bases),
    config_trees.changes(),
    st.sampled_from(MODES),
    quick=100,
    often=6_000,
  )


def test_any_recipe_is_built_or_refused(tiny, fuzz):
  def check(recipe, mode):
    c = config_trees.changed(tiny(), [('recipe', recipe)])
    view = outcome(c, mode)
    if not isinstance(view, tuple):
      args = dict(view.recipe)
      assert recipes.build(args.pop('name'), **args).terms

  fuzz(
    10,
    'recipes of any terms',
    check,
    config_trees.recipes(),
    st.sampled_from(MODES),
    quick=40,
    often=3_000,
  )


# Settings that are wrong whatever stands beside them, and what is said of each.
WRONG = {
  'seed': (-1, 'seed=-1: must be at least 0'),
  'steps': ('many', "steps='many': expected int"),
  'batch_size': (2.5, 'batch_size=2.5: expected int'),
  'log_every': (0, 'log_every=0: must be at least 1'),
  'max_skipped': (True, 'max_skipped=True: expected int'),
  'chunk_size': (10**10, 'chunk_size=10000000000: must be from'),
  'profile': ('3-', "profile='3-': expected a step"),
  'teacher_mix': (1.0, 'teacher_mix=1.0: must be in [0, 1)'),
  'stpes': (3, 'unknown key stpes; did you mean steps?'),
  'task.on_long': ('cut', "task.on_long='cut': allowed are error"),
  'task.max_response_tokens': (None, 'response_tokens=None: expected int'),
  'task.chat_template': (1, 'task.chat_template=1: expected bool'),
  'task.prompt_padding': (b'left', "task.prompt_padding=b'left': expected str"),
  'student.dtype': ('float16', "student.dtype='float16': allowed are"),
  'student.dropout': (1, 'student.dropout=1.0: must be in [0, 1)'),
  'student.sharding': ({'embed': 'x'}, "student.sharding.embed='x': names are"),
  'student.layers': ({'head': 1}, "student.layers={'head': 1}: expected"),
  'teacher.config': ({'model_type': 't6'}, 'teacher.config makes no model: mo'),
  'teacher.remat': ([], 'teacher.remat=(): expected bool'),
  'teacher.lora.rank': (2, 'teacher.lora.rank=2: only the student trains'),
  'reference.config': ({'model_type': 't5'}, 'reference.config makes no model'),
  'reward.attention': ('flash', "reward.attention='flash': allowed are"),
  'sampling.top_p': (0, 'sampling.top_p=0.0: must be in (0, 1]'),
  'sampling.temperature': (float('nan'), 'temperature=nan: expected a finite'),
  'teacher_sampling.block': ({}, 'teacher_sampling.block={}: expected int'),
  'optimizer.name': ('adam', "optimizer.name='adam': allowed are"),
  'optimizer.learning_rate': (1e39, 'optimizer.learning_rate=1e+39: must be'),
  'optimizer.trainable': ('(', "optimizer.trainable='(' is not a valid"),
  'optimizer.clip_nrom': (1.0, 'unknown key optimizer.clip_nrom; did you mean'),
  'auxiliary_optimizer': (3, 'auxiliary_optimizer=3: expected a section'),
  'eval.metrics': (('rouge9',), "eval.metrics: unknown ['rouge9']"),
  'eval.split': ('dev', "has no split 'dev'"),
  'eval.analyses': ('spread', "eval.analyses: unknown ['spread']"),
  'eval.batch_size': (-4, 'eval.batch_size=-4: must be at least 1'),
  'generate.model': ('reference', "generate.model='reference': allowed are"),
  'generate.shard_size': ('', "generate.shard_size='': expected int"),
  'checkpoint.keep_last': (0, 'checkpoint.keep_last=0: must be at least 1'),
  'checkpoint.best_mode': ('most', "checkpoint.best_mode='most': allowed are"),
  'mesh.data': (0, "'data': 0"),
  'tasks': ({'a': {'name': 'smux'}}, "tasks.a: no task 'smux'"),
  'recipe.lam': (1.5, 'source.student=1.5: expected 0 to 1'),
  'recipe.beta': ('x', "beta: schedule 'x': expected a number"),
  'recipe.coin': ('row', "coin='row'; allowed are"),
}


def holding_itself():
  found = []
  found.append(found)
  return found


@pytest.mark.parametrize(
  ('key', 'value', 'problem'),
  [
    (
      'teacher.path',
      config_dict.required_placeholder(str),
      'teacher.path=None: expected str',
    ),
    ('recipe.terms', holding_itself(), 'a list or section holds itself'),
    ('optimizer.trainable', 'a{99999999999}', 'not a valid regular expression'),
    ('optimizer.trainable', '(' * 9999, 'is not a valid regular expression'),
    ('reward.path', '~nobody-of-that-name/x', '~nobody-of-that-name/x'),
    ('task.args.path', '~nobody-of-that-name/x', '~nobody-of-that-name/x'),
    ('eval.texts', 'x' * 5000, 'there is no such file'),
  ],
)
def test_values_that_break_libraries_are_problems(tiny, key, value, problem):
  c = tiny()
  *sections, name = key.split('.')
  section = c
  for each in sections:
    section = section[each]
  with c.unlocked():
    section[name] = value
  mode = 'evaluate' if key == 'eval.texts' else 'train'
  with pytest.raises(config.ConfigError) as error:
    checks.check_places(checks.validate(c, mode))
  assert any(problem in each for each in error.value.problems)


def test_every_problem_is_listed(fuzz):
  embedded = runpy.run_path(str(ROOT / 'configs' / 'gkd_xsum.py'))
  base = embedded['get_config']('embedded')

  def check(names):
    edits = [(name, WRONG[name][0]) for name in names]
    found = outcome(config_trees.changed(base, edits), 'train')
    for name in names:
      said = [line for line in found if WRONG[name][1] in line]
      assert len(said) == 1, (name, found)

  check(sorted(WRONG))
  names = st.lists(
    st.sampled_from(sorted(WRONG)), min_size=1, max_size=20, unique=True
  )
  fuzz(10, 'sets of wrong settings', check, names, quick=30, often=2_000)


@pytest.mark.slow
def test_what_is_valid_makes_a_step(tiny, fuzz):
  """All that shapes can tell: the models, the data's shapes, the whole step."""
  other = {**tiny().task.to_dict(), 'teacher_responses': 'online'}
  base = tiny(eval__every=0, checkpoint__export='last', tasks={'other': other})
  # What only the two models' layers can tell, which may be files.
  layers = r'stack=|layers and the teacher|has no cross_attention|strategy'
  made = []

  def check(edits):
    view = outcome(config_trees.changed(base, edits), 'train')
    if isinstance(view, tuple):
      return
    try:
      planned = job.make(view, jax.devices())
      params = {'student': planned.run.student_params, **planned.run.auxiliary}
      program = planned.run.program()
      program.rehearse(params, planned.frozen, planned.batch, planned.rows)
    except ValueError as error:
      assert re.search(layers, str(error)), str(error)
    made.append(view)

  fuzz(
    10,
    'recipes and settings that could run',
    check,
    recipe_trees.settings(),
    quick=30,
    often=200,
  )
  assert made


BROKEN = {
  'a syntax error': ('def get_config(:\n', 'invalid syntax'),
  'an error': ('def get_config():\n  return 1 / 0\n', 'division by zero'),
  'no function': ('c = 3\n', 'get_config'),
  'no config': ('def get_config():\n  return None\n', 'None'),
  'a mapping': ('def get_config():\n  return {"steps": 3}\n', 'dict'),
  'a missing module': ('import no_such_module\n', 'no_such_module'),
  'bad UTF-8': (b'\xff\xfe\n', 'utf-8|UTF-8|null|Non-'),
  'nothing': ('', 'get_config'),
  'an exit': ('import sys\nsys.exit("bye")\n', 'bye'),
}

# Parses each command line that it is given, as `python -m kdjax.main` does.
PARSER = """
import json, os, sys
from jax._src import xla_bridge
from kdjax import checks, command
for argv in json.loads(sys.argv[1]):
  if os.fork():
    os.wait()
    continue
  sys.argv = ['kdjax', *argv]
  try:
    command.parse(sys.argv)
    checks.validate(command.CONFIG.value, command.MODE.value)
    said = 'parsed'
  except (SystemExit, ValueError) as error:
    said = str(error)
  print(json.dumps([said, xla_bridge.backends_are_initialized()]), flush=True)
  os._exit(0)
"""


def parsed(lines, caches):
  """Returns [what is said, whether a device was touched] of command lines."""
  done = subprocess.run(
    [sys.executable, '-c', PARSER, json.dumps(lines)],
    env={**os.environ, **caches},
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  return [json.loads(line) for line in done.stdout.splitlines()]


def test_command_lines_that_cannot_be_read(caches, tmp_path, tried):
  embedded = '--config=configs/gkd_xsum.py:embedded'
  expected = [
    ([embedded], 'parsed'),
    ([embedded, '--config.steps='], 'steps'),
    ([embedded, '--config.steps=1e3'], 'steps'),
    ([embedded, '--config.optimizer.learning_rate=fast'], 'fast'),
    ([embedded, '--config.optimizer.learning_rate=nan'], 'nan'),
    ([embedded, '--config.task=xsum'], 'task'),
    ([embedded, '--config.recipe.lam=(1'], r'lam|\(1'),
    ([embedded, '--config.stpes=3'], 'stpes'),
    ([embedded, '--config.=3'], 'config'),
    ([embedded, '--config.eval.metrics=rouge9,rouge8'], 'rouge9'),
    ([embedded, '--config.student.scan=maybe'], 'maybe'),
    ([embedded, '--nonsense=3'], 'nonsense'),
    ([embedded, 'stray'], 'stray'),
    (['--config=configs/gkd_xsum.py:embeded'], 'embeded'),
    (['--config=configs/gkd_xsum.py:lam=x'], 'lam=x'),
    (['--config=configs'], 'configs'),
    (['--config=no/such/file.py'], 'no/such/file.py'),
    (['--config='], 'config'),
    ([], 'config'),
  ]
  for name, (text, reason) in BROKEN.items():
    path = tmp_path / f'{name.replace(" ", "_")}.py'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    expected.append(([f'--config={path}'], reason))
  lines = [[*line, '--workdir=x'] for line, _ in expected]
  found = parsed(lines, caches)
  assert len(found) == len(expected)
  for line, (_, reason), (said, touched) in zip(lines, expected, found):
    assert re.search(reason, said), (line, said)
    assert 'Traceback' not in said and not touched, (line, said)
    one = said.startswith('the config has') or said.count('\n') == 0
    assert one, (line, said)
  tried(10, 'command lines', len(expected))


@pytest.mark.slow
def test_a_process_says_it_in_one_line(command, tmp_path, tried):
  (tmp_path / 'config.py').write_text('def get_config(:\n')
  for given, flag in (
    (str(tmp_path / 'config.py'), '--config.steps=3'),
    (str(tmp_path), '--config.steps=3'),
    (str(ROOT / 'configs/gkd_xsum.py:embedded'), '--config.steps=few'),
  ):
    process = command(f'--workdir={tmp_path}/run', flag, config=given)
    printed, log = process.communicate(timeout=300)
    assert process.returncode == 1 and not printed
    assert log.startswith('kdjax: ') and log.count('\n') == 1, log
    assert not (tmp_path / 'run').exists()
  tried(10, 'processes', 3)
