"""What an axis is called, and the flags of `kdjax.main` that set it."""

import sys
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from kdjax import recipes
from kdjax.config import ConfigError
from kdjax.sweep.axes import Value, Values

# What a field is, for who doesn't know its letter.
ALIASES = {'student_fraction': 'lam'}


def load(given: list[str]) -> ml_collections.ConfigDict:
  """Returns the config that flags of `kdjax.main` make.

  Raises:
    ValueError: the file can't be read, or refuses an argument.
  """
  # config_flags looks for --config.KEY in sys.argv, whatever it is to parse.
  parsed = flags.FlagValues()
  found = config_flags.DEFINE_config_file(
    'config',
    lock_config=False,
    accept_new_attributes=True,
    flag_values=parsed,
  )
  argv, sys.argv = sys.argv, ['sweep', *given]
  try:
    parsed(sys.argv)
    found.value.keys()  # raises if the file could not be read
    return found.value
  except (flags.Error, OSError, LookupError, TypeError, ValueError) as error:
    # The message about an error within a config file holds a whole stack.
    reason = str(error).strip().splitlines()[-1].strip()
    raise ValueError(f'{" ".join(given)}: {reason}') from None
  finally:
    sys.argv = argv


class Names:
  """Finds which flags set an axis, for one config file.

  An axis is an argument of the file (`--config=FILE:beta=0.5`), a field of the
  config (`optimizer.learning_rate`, or `learning_rate` where one field alone is
  called so), or an argument of its recipe.
  """

  def __init__(self, config: str):
    """Raises ValueError where the config can't be read."""
    self._config = config
    load([f'--config={config}'])

  def flags(self, values: Values) -> list[str]:
    """Returns the flags of a setting.

    Raises:
      ConfigError: listing the names that are nothing's, and values that the
        file refuses.
    """
    args, fields, problems = [], {}, []
    for name, value in values.items():
      try:
        if self._is_arg(name, value):
          args.append(f'{ALIASES.get(name, name)}={_text(value)}')
        else:
          fields[name] = value
      except ValueError as error:
        problems.append(str(error))
    config = self._with(args)
    found = [f'--config={config}']
    for name, value in fields.items():
      try:
        path = self._field(load([f'--config={config}']), name)
        found.append(f'--config.{path}={_text(value)}')
      except ValueError as error:
        problems.append(str(error))
    if problems:
      raise ConfigError(problems)
    return found

  def _with(self, args: list[str]) -> str:
    separator = ',' if ':' in self._config else ':'
    return separator.join([self._config, ','.join(args)][: 1 + bool(args)])

  def _is_arg(self, name: str, value: Value) -> bool:
    """Whether the file takes an argument of this name."""
    return (
      '.' not in name
      and self._refuses('no_such_argument=1')
      and not self._refuses(f'{ALIASES.get(name, name)}={_text(value)}')
    )

  def _refuses(self, arg: str) -> bool:
    """Whether the file says that it takes no such argument."""
    try:
      load([f'--config={self._with([arg])}'])
    except ValueError as error:
      if 'unknown config argument' in str(error):
        return True
      if 'no_such_argument' not in arg:
        raise
    return False

  def _field(self, config: ml_collections.ConfigDict, name: str) -> str:
    """Returns where in a config an axis stands."""
    plain, recipe = ALIASES.get(name, name), config.recipe.get('name')
    paths = set(_paths(config.to_dict()))
    ends = sorted(path for path in paths if path.endswith(f'.{plain}'))
    if plain in paths:
      return plain
    if len(ends) == 1:
      return ends[0]
    if ends:
      raise ValueError(f'axis {name!r} may be any of {", ".join(ends)}')
    if recipes.takes(recipe, plain.removeprefix('recipe.')):
      return f'recipe.{plain.removeprefix("recipe.")}'
    raise ValueError(
      f'axis {name!r} is not an argument of {self._config.partition(":")[0]}, '
      f'nor a field of its config, nor an argument of its recipe, {recipe!r}'
    )


def _paths(config: Mapping[str, Any], prefix: str = '') -> list[str]:
  found = []
  for name, value in config.items():
    found.append(prefix + name)
    if isinstance(value, Mapping):
      found += _paths(value, f'{prefix}{name}.')
  return found


def _text(value: Value) -> str:
  return str(value).lower() if isinstance(value, bool) else str(value)


def describe(values: Values) -> str:
  """Returns a setting as text, such as 'student_fraction=0.5,beta=0.1'."""
  return ','.join(f'{name}={_text(value)}' for name, value in values.items())
