"""Configs: the default one, the checks of one, and `parse_arg`.

A config file returns `default(...)`, an `ml_collections.ConfigDict` with every
field of `schema` and its default value; `validate` turns it into the frozen
`Config` that the rest of kdjax reads, or raises one error that lists every
problem.
"""

import dataclasses
import difflib
import operator
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from kdjax import values
from kdjax.schema import Config, Model, Optimizer, Task

__all__ = [
  'HARMLESS',
  'ONLINE',
  'ROLES',
  'Config',
  'ConfigError',
  'Model',
  'Optimizer',
  'Task',
  'check',
  'default',
  'parse_arg',
  'profiled',
  'task_section',
  'tasks_of',
  'validate',
]

# The models of a run, as its config calls them.
ROLES = ('student', 'teacher', 'reference', 'reward')

# `teacher_responses` of a task whose teacher samples at every step.
ONLINE = 'online'


class ConfigError(ValueError):
  """All that is wrong with a config, one problem a line."""

  def __init__(self, problems: Iterable[str]):
    self.problems = tuple(map(values.line, problems))
    lines = '\n  '.join(self.problems)
    super().__init__(
      f'the config has {len(self.problems)} problem(s):\n  {lines}'
    )


# Keys that may differ between the runs that share a workdir: they change what
# is shown or kept, or where it is computed, never what is learned. (Another
# mesh adds the same numbers in another order.)
HARMLESS = (
  'log_every',
  'profile',
  'eval.*',
  'checkpoint.*',
  'generate.*',
  'max_skipped',
  'mesh.*',
  '*.sharding*',
)


def tasks_of(c: Config) -> dict[str, Task]:
  """Returns all tasks by name; '' is the main one."""
  return {'': c.task, **c.tasks}


def task_section(name: str) -> str:
  """Returns where a config describes the task that `tasks_of` calls so."""
  return f'tasks.{name}' if name else 'task'


def default() -> ml_collections.ConfigDict:
  """Returns a config of defaults; `validate` checks what is set."""
  return _to_dict(Config())


def _to_dict(view: Any) -> ml_collections.ConfigDict:
  out = ml_collections.ConfigDict(type_safe=False)
  for field in dataclasses.fields(view):
    value = getattr(view, field.name)
    if dataclasses.is_dataclass(value):
      value = _to_dict(value)
    elif isinstance(value, Mapping):
      value = ml_collections.ConfigDict(dict(value), type_safe=False)
    out[field.name] = value
  return out


def validate(
  config: ml_collections.ConfigDict, problems: Iterable[str] = ()
) -> Config:
  """Returns the typed view of a config.

  Args:
    config: as a config file returns it.
    problems: what callers who know the registries found wrong; reported with
      the rest.

  Raises:
    ConfigError: listing every unknown key, wrong type and wrong value.
  """
  view, found = check(config)
  found += problems
  if found:
    raise ConfigError(found)
  return view


def check(config: ml_collections.ConfigDict) -> tuple[Config, list[str]]:
  """Returns the typed view, defaults for what is wrong, and problems."""
  found: list[str] = []
  try:
    view = _view(Config, _plain(config), '', found)
  except RecursionError:
    return Config(), ['a list or section holds itself, or is nested too deep']
  return view, found + _combinations(view)


def _plain(value: Any) -> Any:
  if isinstance(value, config_dict.FieldReference):
    try:
      value = value.get()
    except config_dict.RequiredValueError:
      return None
  if isinstance(value, ml_collections.ConfigDict):
    value = dict(value.items(preserve_field_references=True))
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(_plain(v) for v in value)
  return value


def _view(cls: type, given: Mapping[str, Any], where: str, found: list[str]):
  """Builds the dataclass `cls`, noting problems."""
  hints, kwargs = typing.get_type_hints(cls), {}
  for key in sorted(set(given) - set(hints), key=str):
    near = difflib.get_close_matches(str(key), hints, 1)
    hint = f'; did you mean {where}{near[0]}?' if near else ''
    found.append(f'unknown key {where}{key}{hint} (known: {sorted(hints)})')
  for field in dataclasses.fields(cls):
    if field.name not in given:
      continue
    value, name = given[field.name], where + field.name
    kind = hints[field.name]
    if field.metadata.get('names'):
      value = _split(value)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
      kwargs[field.name] = _view(kind, value, f'{name}.', found)
    elif dataclasses.is_dataclass(kind):
      found.append(f'{name}={values.shown(value)}: expected a section')
    elif sections := _sections(kind):
      main = kwargs.get('task', Task())
      inherited = {k: getattr(main, k) for k in _INHERITED}
      kwargs[field.name] = _named(sections, value, name, inherited, found)
    elif problem := values.problem(value, kind):
      found.append(f'{name}={values.shown(value)}: {problem}')
    elif isinstance(value, Mapping):
      kwargs[field.name] = values.plain(value, name, found)
    else:
      kwargs[field.name] = _converted(value, kind)
      if problem := _value_problem(value, field.metadata):
        found.append(f'{name}={values.shown(value)}: {problem}')
  return cls(**kwargs)


# What further tasks take from the main one, unless they say otherwise.
_INHERITED = (
  'vocabulary',
  'max_prompt_tokens',
  'max_response_tokens',
  'on_long',
  'on_bad_example',
  'prompt_padding',
)


def _sections(kind: Any) -> type | None:
  """Returns the dataclass D of a field of type Mapping[str, D]."""
  items = typing.get_args(kind)
  found = items[1] if len(items) == 2 else None
  return found if dataclasses.is_dataclass(found) else None


def _named(
  cls: type, given: Any, where: str, inherited: Mapping[str, Any], found
) -> dict[str, Any]:
  """Builds a section of sections, noting problems."""
  if not isinstance(given, Mapping):
    found.append(f'{where}={values.shown(given)}: expected named sections')
    return {}
  sections = {}
  for name, section in given.items():
    if not isinstance(section, Mapping) or not isinstance(name, str):
      shown = values.shown(section)
      found.append(f'{where}.{name}={shown}: expected a section with a name')
      continue
    if 'name' not in section:
      found.append(f'{where}.{name}.name is missing: it names a task')
    view = _view(cls, {**inherited, **section}, f'{where}.{name}.', found)
    sections[name] = view
  return sections


def _split(names: Any) -> Any:
  """Takes names apart that came as one string: a command line's 'a,b'."""
  names = (names,) if isinstance(names, str) else names
  if not isinstance(names, tuple):
    return names
  parts = (x.split(',') if isinstance(x, str) else (x,) for x in names)
  flat = (x.strip() if isinstance(x, str) else x for y in parts for x in y)
  return tuple(x for x in flat if x != '')


def _converted(value: Any, kind: Any) -> Any:
  """Returns whole numbers as floats, where floats are expected."""
  if kind is float:
    return float(value)
  if typing.get_origin(kind) is tuple:
    return tuple(_converted(v, typing.get_args(kind)[0]) for v in value)
  return value


def _value_problem(value: Any, rules: Mapping[str, Any]) -> str | None:
  if 'allowed' in rules and value not in rules['allowed']:
    return f'allowed are {", ".join(map(str, rules["allowed"]))}'
  # Written so that NaN is refused.
  if 'minimum' in rules and not value >= rules['minimum']:
    return f'must be at least {rules["minimum"]}'
  if 'within' in rules:
    (low, high), ends = rules['within'], rules['ends']
    above = value >= low if ends[0] == '[' else value > low
    below = value <= high if ends[1] == ']' else value < high
    if not (above and below):
      return f'must be in {ends[0]}{low}, {high}{ends[1]}'
  return None


def _combinations(c: Config) -> list[str]:
  """Problems of fields that are right one by one."""
  return [
    *_model_problems(c),
    *_batch_problems(c),
    *_schedule_problems(c),
    *_evaluation_problems(c),
    *_mesh_problems(c),
  ]


def _model_problems(c: Config) -> list[str]:
  found = []
  if 'name' not in c.recipe:
    found.append("recipe.name is missing, e.g. config.recipe = {'name': 'gkd'}")
  for role in ROLES:
    model = getattr(c, role)
    if model.path and model.config:
      found.append(f'{role}.path and {role}.config exclude each other')
  # Texts need no model; `checks` refuses them where there must be one.
  if not c.student.path and not c.student.config and not c.eval.texts:
    found.append('student.path or student.config must be given')
  patterns = {f'{x}.lora.targets': getattr(c, x).lora.targets for x in ROLES}
  patterns['optimizer.trainable'] = c.optimizer.trainable
  for name, pattern in patterns.items():
    try:
      re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
      found.append(
        f'{name}={pattern!r} is not a valid regular expression: {error}'
      )
  return found


def _batch_problems(c: Config) -> list[str]:
  found = []
  if c.micro_batch_size and c.batch_size % c.micro_batch_size:
    found.append(
      f'micro_batch_size={c.micro_batch_size} does not divide '
      f'batch_size={c.batch_size}'
    )
  for name in ('sampling', 'teacher_sampling'):
    least = getattr(c, name).min_new_tokens
    if least > c.task.max_response_tokens:
      found.append(
        f'{name}.min_new_tokens={least} exceeds '
        f'task.max_response_tokens={c.task.max_response_tokens}'
      )
  return found


def _schedule_problems(c: Config) -> list[str]:
  found = []
  decays = c.optimizer.schedule in ('linear', 'cosine')
  updates = c.steps * c.updates_per_rollout
  if decays and c.optimizer.warmup_steps >= updates:
    found.append(
      f'optimizer.warmup_steps={c.optimizer.warmup_steps} leaves none of '
      f'steps={updates} to decay over'
    )
  try:
    steps = profiled(c.profile)
    if steps and steps[-1] > c.steps:
      found.append(f'profile={c.profile!r} lies beyond steps={c.steps}')
  except ValueError as error:
    found.append(str(error))
  return found


def _evaluation_problems(c: Config) -> list[str]:
  found = []
  for name, section in (('eval', c.eval), ('generate', c.generate)):
    if section.beams > 1 and section.temperature > 0:
      found.append(
        f'{name}.beams={section.beams} excludes '
        f'{name}.temperature={section.temperature}: beam search is greedy'
      )
  if c.checkpoint.export == 'best':
    for name in ('eval.every', 'checkpoint.keep_best'):
      if not operator.attrgetter(name)(c):
        found.append(f"checkpoint.export='best' needs {name} above 0")
  return found


def _mesh_problems(c: Config) -> list[str]:
  found = []
  sizes = dataclasses.asdict(c.mesh)
  if any(size < 1 and size != -1 for size in sizes.values()):
    found.append(f'mesh={sizes}: sizes must be positive, or -1 for the rest')
  if list(sizes.values()).count(-1) > 1:
    found.append(f'mesh={sizes}: one size may be -1')
  return found


def profiled(profile: str) -> range:
  """Returns the steps that `Config.profile` names: one, or first to last.

  >>> list(profiled('100')), list(profiled('100-102')), list(profiled(''))
  ([100], [100, 101, 102], [])

  Raises:
    ValueError: it names no steps.
  """
  if not profile:
    return range(0)
  first, dash, last = profile.partition('-')
  last = last if dash else first
  if first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
    return range(int(first), int(last) + 1)
  raise ValueError(
    f"profile={profile!r}: expected a step, such as '100', or the first and "
    "the last of several, such as '100-104'"
  )


def parse_arg(arg: str | None, **defaults: Any) -> types.SimpleNamespace:
  """Parses what follows the colon of `--config=FILE:ARG`.

  `a=1,b=x,c` sets a and b, and c to True. Each value takes the type of its
  default.

  >>> parse_arg('embedded,student=small', embedded=False, student='base')
  namespace(embedded=True, student='small')

  Raises:
    ValueError: for an argument that has no default, or a value of another type.
  """
  found = dict(defaults)
  for item in filter(None, (arg or '').split(',')):
    name, given, text = item.partition('=')
    if name not in defaults:
      raise ValueError(
        f'unknown config argument {name!r}; known are {sorted(defaults)}'
      )
    kind = type(defaults[name])
    if kind is bool:
      if text not in ('', 'true', 'True', 'false', 'False'):
        raise ValueError(f'config argument {item!r}: expected true or false')
      found[name] = text not in ('false', 'False')
      continue
    try:
      if not given:
        raise ValueError
      found[name] = kind(text)
    except ValueError:
      raise ValueError(
        f'config argument {item!r}: expected {name}=, then {kind.__name__}'
      ) from None
  return types.SimpleNamespace(**found)
