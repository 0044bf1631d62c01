"""Tests of the cache of compiled programs: where it is, and that it serves."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest

from kdjax import compilation

# Prints the folder, and how many programs were compiled and not found there.
CODE = """
import sys
import jax, jax.numpy as jnp
from jax import monitoring
from kdjax import compilation
compilation.keep(sys.argv[1])
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((2, 2))).block_until_ready()
asked = events.count('/jax/compilation_cache/compile_requests_use_cache')
hits = events.count('/jax/compilation_cache/cache_hits')
print(jax.config.jax_compilation_cache_dir, asked - hits)
"""


def compiled(workdir, **environment):
  """Returns the folder and the number of compilations of a fresh process."""
  variables = {
    name: value
    for name, value in os.environ.items()
    if 'CACHE' not in name or name == 'KDJAX_CACHE'
  }
  printed = subprocess.run(
    [sys.executable, '-c', CODE, str(workdir)],
    cwd=pathlib.Path(__file__).parents[1],
    env={**variables, **environment},
    check=True,
    capture_output=True,
    text=True,
  )
  assert not printed.stderr
  folder, count = printed.stdout.split()
  return folder, int(count)


def test_the_runs_of_a_folder_share_what_was_compiled(tmp_path):
  folder = str(tmp_path / 'runs' / '.jax_cache')
  where, count = compiled(tmp_path / 'runs' / 'a')
  assert where == folder and count > 1
  assert compiled(tmp_path / 'runs' / 'b') == (folder, 0)
  # Neither run's own folder is made: that is the run's to claim.
  assert [path.name for path in (tmp_path / 'runs').iterdir()] == ['.jax_cache']


def test_jax_says_where(tmp_path):
  mine = str(tmp_path / 'mine')
  where, count = compiled(tmp_path / 'a', JAX_COMPILATION_CACHE_DIR=mine)
  assert where == mine and count > 1
  assert compiled(tmp_path / 'b', JAX_COMPILATION_CACHE_DIR=mine) == (mine, 0)
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


@pytest.fixture
def unset():
  """JAX without a folder for what it compiles."""
  import jax

  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)
  yield jax.config
  jax.config.update('jax_compilation_cache_dir', before)


def test_a_parent_that_cannot_be_written_is_no_reason_to_stop(
  unset, tmp_path, caplog, monkeypatch
):
  (tmp_path / 'file').write_text('')
  with caplog.at_level(logging.WARNING):
    compilation.keep(tmp_path / 'file' / 'run')
  # Root may write anywhere, so permission is taken away where it is asked for.
  monkeypatch.setattr(os, 'access', lambda path, mode: False)
  with caplog.at_level(logging.WARNING):
    compilation.keep(tmp_path / 'run')
  assert unset.jax_compilation_cache_dir is None
  first, second = caplog.messages
  assert (
    str(tmp_path / 'file') in first and 'JAX_COMPILATION_CACHE_DIR' in first
  )
  assert f'no permission to write to {tmp_path}' in second
