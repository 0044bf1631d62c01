"""How often the promises of RELIABILITY.md are tried, and what is told of it.

The quick part runs with all other tests. `--full` tries more often, and prints
the table of RELIABILITY.md.
"""

import collections
import pathlib
import shutil

import hypothesis
import pytest

from tests.reliability import hostile


@pytest.fixture
def full(request):
  """Whether everything is tried as often as RELIABILITY.md says."""
  return request.config.getoption('full')


@pytest.fixture
def tries(full):
  """Returns a function of (quick, full) to how often something is tried."""
  return lambda quick, often: often if full else quick


@pytest.fixture
def tried(record_property):
  """Returns a function that notes (promise, what was tried, how often)."""

  def note(promise, what, count):
    record_property('tried', (promise, what, count))

  return note


@pytest.fixture
def fuzz(full, tries, tried):
  """Returns a function that runs a test on values drawn by hypothesis.

  A quick run draws the same values every time, a full one others.
  """

  def run(promise, what, test, *strategies, quick, often):
    count = tries(quick, often)
    settings = hypothesis.settings(
      max_examples=count,
      deadline=None,
      database=None,
      derandomize=not full,
      print_blob=True,
      suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(*strategies)(test))()
    tried(promise, what, count)

  return run


@pytest.fixture(scope='session')
def saved(tmp_path_factory):
  """Returns a function of a Hugging Face config to a fresh model's directory.

  It isn't to be changed.
  """
  import jax

  from kdjax import models

  made = {}

  def save(config):
    name = config['model_type']
    if name not in made:
      made[name] = tmp_path_factory.mktemp(name)
      model, params = models.from_config(config, jax.random.key(0))
      models.save_pretrained(made[name], model, jax.device_get(params))
    return made[name]

  return save


@pytest.fixture
def folder(saved, tmp_path):
  """A small model's directory, to be tampered with."""
  return pathlib.Path(shutil.copytree(saved(hostile.LLAMA), tmp_path / 'model'))


def pytest_terminal_summary(terminalreporter, config):
  if not config.getoption('full'):
    return
  counts = collections.Counter()
  for report in terminalreporter.stats.get('passed', []):
    for name, value in report.user_properties:
      if name == 'tried':
        promise, what, count = value
        counts[promise, what] += count
  terminalreporter.section('what was tried')
  terminalreporter.line('| promise | tried | times |')
  terminalreporter.line('|---|---|---:|')
  for (promise, what), count in sorted(counts.items()):
    terminalreporter.line(f'| {promise} | {what} | {count:,} |')
