"""What a config gets wrong that only the registries can tell."""

import ml_collections

from kdjax.checks import (
  evaluations,
  generation,
  models,
  places,
  recipe,
  tasks,
)
from kdjax.checks.caches import cached
from kdjax.checks.models import given
from kdjax.config import Config, ConfigError, check

__all__ = ['cached', 'check_places', 'given', 'validate']


def validate(config: ml_collections.ConfigDict, mode: str = 'train') -> Config:
  """Returns a config's typed view, checked against every registry.

  Args:
    config: as a config file returns it.
    mode: what it is for: 'train', 'evaluate', 'generate' or 'plan', which
      checks what training does.

  Raises:
    ConfigError: listing every problem, before any device is touched.
  """
  view, found = check(config)
  mode = 'train' if mode == 'plan' else mode
  found += recipe.problems(view, mode)
  found += tasks.problems(view, mode)
  found += models.problems(view, mode)
  found += evaluations.problems(view, mode)
  found += generation.problems(view, mode)
  if found:
    raise ConfigError(found)
  return view


def check_places(config: Config) -> None:
  """Checks that what a run would read is on this machine, or on the hub.

  Apart from `validate`, as configs are also checked where they don't run.

  Raises:
    ConfigError: listing every file and folder that isn't there.
  """
  if found := places.problems(config):
    raise ConfigError(found)
