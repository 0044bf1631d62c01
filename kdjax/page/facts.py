"""What a config says, in the few words that stand under the title."""

from collections.abc import Mapping, Sequence
from typing import Any


def of_run(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns label to value, such as {'task': 'g2p', 'steps': '450'}."""
  if not config:
    return {}
  recipe = dict(config['recipe'])
  name = recipe.pop('name')
  settings = ', '.join(f'{k} {value(v)}' for k, v in recipe.items() if shown(v))
  optimizer = config['optimizer']
  sampling = config['sampling']
  return {
    'task': config['task']['name'],
    'recipe': f'{name} ({settings})' if settings else name,
    'teacher': config['teacher']['path'] or 'none',
    'student': config['student']['path'] or 'from scratch',
    'steps': value(config['steps']),
    'batch': value(config['batch_size']),
    'optimizer': f'{optimizer["name"]}, {value(optimizer["learning_rate"])}',
    'sampling': f'temperature {value(sampling["temperature"])}',
    'seed': value(config['seed']),
  }


def shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Returns the facts that all of the configs have in common."""
  found = [of_run(config) for config in configs if config]
  if not found:
    return {}
  first, *others = found
  return {
    label: text
    for label, text in first.items()
    if all(other.get(label) == text for other in others)
  }


def shown(setting: Any) -> bool:
  """Whether a setting fits in a line: a number or a word."""
  return isinstance(setting, bool | int | float | str) and setting != ''


def value(setting: Any) -> str:
  """Returns a setting as one would type it: 0.5, 100000, true."""
  if isinstance(setting, bool):
    return str(setting).lower()
  return f'{setting:.10g}' if isinstance(setting, float) else str(setting)
