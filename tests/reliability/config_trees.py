"""Configs that a user might write, and worse: what hypothesis draws.

A tree is a base config and a list of (dotted key, value) that are set in it.
"""

import contextlib
import inspect

import ml_collections
from hypothesis import strategies as st

from kdjax import config, evaluation
from kdjax.data import tasks
from kdjax.losses import DIVERGENCES, STRATEGIES
from kdjax.objective import LOSSES, REWARDS, SOURCES
from kdjax.objective.policy import BASELINES
from kdjax.recipes import RECIPES

NAN, INF = float('nan'), float('inf')
DELETED = object()

# Words that mean something somewhere, so that they are tried where they don't.
WORDS = (
  *('', ' ', 'x', '(', '[a-', '*', 'a,b', 'no.such.module:f', 'math:pi', ':'),
  *('rest', 'online', 'student', 'teacher', 'ranked', 'chosen', 'by', 'task'),
  *('float32', 'bfloat16', 'int8', 'copy', 'best', 'min', 'linear', 'constant'),
  *('{input}', '{split}.jsonl', '/no/such/place', '1-3', '9' * 30, 'é\0\ud800'),
  *('data+fsdp', 'tensor', 'embed', 'math:fsum', 'brevity', 'sequence', 'sum'),
)
NUMBERS = (0, 1, -1, 2, 3, 8, 0.5, 1.5, -0.0, 1e-9, 1e38, 1e308, NAN, INF, -INF)


def scalars():
  return st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, DELETED]),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.just(object),
    st.just(1j),
  )


def junk():
  """Any value that Python has, a few levels deep."""
  keys = st.one_of(st.sampled_from(WORDS), st.text(max_size=3))
  return st.recursive(
    st.one_of(scalars(), words(LOSSES)),
    lambda inner: st.one_of(
      st.lists(inner, max_size=3),
      st.lists(inner, max_size=3).map(tuple),
      st.dictionaries(keys, inner, max_size=3),
      st.dictionaries(st.integers(), inner, max_size=1),
      st.builds(set),
    ),
    max_leaves=6,
  )


def words(*more):
  return st.sampled_from([*WORDS, *(each for x in more for each in x)])


def schedules():
  return st.fixed_dictionaries(
    {
      'kind': st.sampled_from(['linear', 'cosine', 'exponential', 'constant']),
      'start': numbers(),
    },
    optional={
      'end': numbers(),
      'steps': st.one_of(st.integers(-1, 9), numbers()),
      'begin': st.one_of(st.integers(-1, 9), numbers()),
      'x': scalars(),
    },
  )


def numbers():
  return st.one_of(st.sampled_from(NUMBERS), st.floats(0, 1), scalars())


def specs():
  return st.one_of(st.floats(0, 1), st.integers(0, 2), schedules(), junk())


def sources():
  names = st.one_of(st.sampled_from([*SOURCES, 'x']), words())
  rest = st.one_of(specs(), st.just('rest'))
  return st.one_of(
    st.sampled_from(SOURCES),
    st.dictionaries(names, rest, max_size=3),
    st.fixed_dictionaries({'chosen': names, 'rejected': names}),
    st.fixed_dictionaries(
      {'ranked': names}, optional={'by': words(REWARDS), 'x': scalars()}
    ),
    junk(),
  )


def _argument(name):
  if name in ('source', 'chosen', 'rejected'):
    return sources()
  if name == 'terms':
    return st.one_of(st.lists(terms(), max_size=3), junk())
  if name == 'stacks':
    return st.lists(st.sampled_from(['encoder', 'decoder', 'x']), max_size=2)
  pools = (DIVERGENCES, STRATEGIES, BASELINES, REWARDS, evaluation.METRICS)
  return st.one_of(
    specs(),
    st.booleans(),
    words(*pools, ('js', 'ipo', 'simpo', 'cosine', 'soft', 'reinforce')),
    junk(),
  )


def terms():
  """A term of a recipe of one's own, mostly with a known loss."""

  def term(loss):
    known = LOSSES[loss].args if loss in LOSSES else ()
    args = {name: _argument(name) for name in (*known, 'x')}
    fields = {
      'name': st.one_of(words(), junk()),
      'source': sources(),
      'weight': specs(),
      'normalize': words(('token', 'sequence', 'sum')),
      'coin': words(('batch', 'example')),
      'task': words(),
      'reward': words(REWARDS, evaluation.METRICS),
      'finished_only': st.one_of(st.booleans(), junk()),
      'loss_args': st.one_of(st.fixed_dictionaries({}, optional=args), junk()),
      'bound': junk(),
      'x': junk(),
    }
    return st.fixed_dictionaries({'loss': st.just(loss)}, optional=fields)

  known = st.sampled_from([*LOSSES]).flatmap(term)
  return st.one_of(known, words(LOSSES).flatmap(term), junk())


def recipes():
  def recipe(name):
    parameters = inspect.signature(RECIPES[name]).parameters
    args = {each: _argument(each) for each in (*parameters, 'beta', 'x')}
    return st.fixed_dictionaries({'name': st.just(name)}, optional=args)

  return st.one_of(
    st.sampled_from([*RECIPES]).flatmap(recipe),
    st.builds(lambda x: {'name': 'terms', 'terms': x}, st.lists(terms())),
    st.dictionaries(words(['name']), junk(), max_size=3),
    junk(),
  )


def task_sections():
  fields = {'args': st.one_of(st.dictionaries(words(), junk()), junk())}
  for name in ('path', 'input', 'target', 'shots', 'metrics', 'context'):
    fields[f'args.{name}'] = junk()
  names = st.one_of(st.sampled_from(tasks.names()), junk())
  return st.fixed_dictionaries({}, optional={'name': names, **fields})


def keys():
  """Every key of the default config, sections included, by its dotted name."""

  def walk(section, prefix=''):
    for key, value in section.items():
      yield f'{prefix}{key}'
      if isinstance(value, ml_collections.ConfigDict):
        yield from walk(value, f'{prefix}{key}.')

  return list(walk(config.default()))


def changes():
  """A list of (dotted key, value)."""
  models = [f'{role}.{x}' for role in ('student', 'teacher') for x in _MAPS]
  anything = st.tuples(st.sampled_from(keys()), junk())
  plausible = st.tuples(
    st.sampled_from(keys()),
    st.one_of(st.integers(0, 9), st.floats(0, 1), st.booleans(), words()),
  )
  mappings = st.tuples(
    st.sampled_from(['tasks', 'task.args', 'recipe', *models]),
    st.dictionaries(words(['model_type', 'd_model']), junk(), max_size=3),
  )
  unknown = st.tuples(
    st.builds('.'.join, st.lists(st.text(max_size=4), min_size=1, max_size=2)),
    junk(),
  )
  whole = st.tuples(st.just('recipe'), recipes())
  further = st.dictionaries(words(), task_sections(), max_size=2)
  shards = st.dictionaries(
    st.sampled_from(['embed', 'heads', 'x']), junk(), max_size=2
  )
  return st.lists(
    st.one_of(
      anything,
      plausible,
      mappings,
      unknown,
      whole,
      st.tuples(st.just('tasks'), further),
      st.tuples(st.just('task.name'), st.sampled_from(tasks.names())),
      st.tuples(st.just('student.sharding'), shards),
    ),
    max_size=5,
  )


_MAPS = ('config', 'layers', 'sharding', 'lora')


def changed(base, edits):
  """Returns a copy of a config with (dotted key, value) pairs set in it.

  Keys whose section an earlier pair replaced by something else are left out.
  """
  c = base.copy_and_resolve_references()
  with c.unlocked():
    for name, value in edits:
      *sections, key = name.split('.')
      section = c
      for each in sections:
        found = isinstance(section, ml_collections.ConfigDict)
        section = section[each] if found and each in section else None
      if isinstance(section, ml_collections.ConfigDict):
        _set(section, key, value)
  return c


def _set(section, key, value):
  if value is DELETED:
    if key in section:
      del section[key]
    return
  with contextlib.suppress(Exception):  # what a ConfigDict itself refuses
    section[key] = value
