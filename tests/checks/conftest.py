"""What the tests of the checks share."""

import pytest

from kdjax import checks, config


@pytest.fixture
def problems():
  """Returns a function of (config, mode) to the problems, one a line."""

  def found(c, mode='train'):
    with pytest.raises(config.ConfigError) as error:
      checks.validate(c, mode)
    return '\n'.join(error.value.problems)

  return found
