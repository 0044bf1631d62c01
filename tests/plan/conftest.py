"""What the tests of plans share."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def scopes():
  """Keeps programs apart in caches that differ only in the scopes counted."""
  name = 'jax_compilation_cache_include_metadata_in_key'
  before = jax.config.values[name]
  jax.config.update(name, True)
  yield
  jax.config.update(name, before)


@pytest.fixture(autouse=True, scope='module')
def flags():
  """Takes XLA_FLAGS away: libtpu ends a process whose flags it doesn't know."""
  jax.jit(lambda: 0)()  # the CPU's compiler has read them
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv('XLA_FLAGS', raising=False)
    yield
