"""One tiny run, and the caches that make the others fast."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import runpy
import subprocess
import sys

# Tiny models spend their time in the compiler; it is told to hurry. Set before
# anything imports jax, for the tests and for the processes that they start.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
if importlib.metadata.version('jax').startswith('0.10.'):
  # XLA's older emitters for CPUs compile twice as fast. jax 0.12 has none.
  os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')
# With libtpu installed jax looks for TPUs first, and its profiler fails.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / 'tests' / 'tiny.py'


def pytest_addoption(parser):
  parser.addoption(
    '--full',
    action='store_true',
    help='try as often as RELIABILITY.md says, for an hour and more',
  )


@pytest.fixture(scope='session')
def caches(tmp_path_factory):
  """Shares tokens and compiled programs; returns the variables that say so."""
  import jax

  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent  # every worker has a folder of its own in the session's
  compiled = str(base / 'compiled')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('KDJAX_CACHE', str(base / 'tokens'))
    jax.config.update('jax_compilation_cache_dir', compiled)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    yield {
      'KDJAX_CACHE': str(base / 'tokens'),
      'JAX_COMPILATION_CACHE_DIR': compiled,
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    jax.config.update('jax_compilation_cache_dir', None)


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory, caches):
  """Writes train, validation and test splits; returns their folder."""
  folder = tmp_path_factory.mktemp('data')
  sounds = dict(zip('abcdefgh', ['AH', 'B', 'K', 'D', 'EH', 'F', 'G', 'HH']))
  rng = np.random.default_rng(0)
  for split, size in {'train': 64, 'validation': 8, 'test': 12}.items():
    words = rng.choice(list(sounds), (size, 4))
    rows = [
      {'spelling': ' '.join(w), 'sounds': ' '.join(sounds[x] for x in w)}
      for w in words
    ]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / f'{split}.jsonl').write_text(lines)
  return folder


@pytest.fixture(scope='session')
def tiny(tiny_data):
  """Returns a function of overrides by dotted name to a `ConfigDict`."""

  def config(**overrides):
    c = runpy.run_path(str(TINY))['get_config'](str(tiny_data))
    with c.unlocked():
      for name, value in overrides.items():
        *sections, key = name.split('__')
        section = c
        for each in sections:
          section = section[each]
        section[key] = value
    return c

  return config


@pytest.fixture(scope='session')
def finished(tiny, tmp_path_factory):
  """The workdir of an undisturbed run of the tiny config. Not to be changed."""
  from kdjax import checks, train

  workdir = tmp_path_factory.mktemp('finished')
  train.train(checks.validate(tiny()), str(workdir))
  return workdir


@pytest.fixture(scope='session')
def command(tiny_data, caches):
  """Starts `python -m kdjax.main` on the tiny config, or on another."""

  def start(*flags, config=f'{TINY}:{tiny_data}'):
    return subprocess.Popen(
      [sys.executable, '-m', 'kdjax.main', f'--config={config}', *flags],
      cwd=ROOT,
      env={**os.environ, **caches},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start


@pytest.fixture(scope='session')
def contents():
  """Returns a function of a folder to the digest of each file in it."""

  def digests(folder):
    return {
      str(path.relative_to(folder)): hashlib.sha256(
        path.read_bytes()
      ).hexdigest()
      for path in sorted(pathlib.Path(folder).rglob('*'))
      if path.is_file()
    }

  return digests
