"""The house rules that code can check: directions, weight, size, packaging."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import runpy
import subprocess
import sys

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted((ROOT / 'kdjax').rglob('*.py'))
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
ALL = [*SOURCES, *CONFIGS, *sorted((ROOT / 'tests').rglob('*.py'))]

# Who may import whom: each room of kdjax (a module or a subpackage), lowest
# first, with the rooms that it may import. All may import `types`; a name with
# a dot opens one module only. A room imports none that stands below it, so
# there are no cycles, and nothing imports train or main.
ROOMS = {
  'types': '',
  'files': '',
  'hub': 'files',
  'checksums': 'files',
  'values': '',
  'nonfinite': '',
  'constraints': '',
  'distributed': 'files',
  'copied_layers': '',
  'losses': 'copied_layers',
  'models': 'constraints copied_layers hub',
  'sampling': 'constraints models.api',
  'data': 'checksums files hub values',
  'schema': '',
  'config': 'schema values',
  'memory': '',
  'compilation': '',
  'profiling': 'files',
  'workdirs': 'distributed files',
  'metrics': 'distributed files',
  'checkpoints': 'checksums distributed files workdirs',
  'partitioning': '',
  'optimizers': '',
  'state': '',
  'testing': 'models.api',
  'evaluation': 'distributed files losses models.api sampling',
  'results': 'evaluation',
  'rewards': 'evaluation values',
  'objective': 'losses optimizers values',
  'recipes': 'objective values',
  'rows': '',
  'step': 'constraints distributed losses models nonfinite objective '
  'optimizers rewards rows sampling state',
  'checks': 'config data evaluation hub models objective partitioning recipes '
  'rewards',
  'sweep': 'checks config files recipes',
  'roles': 'config data hub models optimizers',
  'identity': 'checksums config data hub roles',
  'feed': 'checks config data identity objective',
  'run': 'config data distributed evaluation feed models.api objective '
  'optimizers partitioning rewards roles state step',
  'build': 'checks config data memory models partitioning recipes roles run',
  'generate': 'build config data distributed feed identity losses metrics '
  'models.api run sampling workdirs',
  'page': 'evaluation files metrics results',
  'report': 'checkpoints config data distributed evaluation files metrics '
  'models page roles run',
  'evaluate': 'build checkpoints checks config distributed evaluation files '
  'report run workdirs',
  'plan': 'build checks config data feed losses models objective partitioning '
  'recipes roles run sampling step',
  'interruption': 'distributed',
  'train': 'build checkpoints checks config distributed interruption metrics '
  'nonfinite profiling report run state workdirs',
  'command': '',
  'main': 'checks command compilation distributed evaluate files generate plan '
  'train',
}

# All that some rooms import from outside, so that each is of use on its own.
LIBRARIES = {
  'types': 'jax',
  'hub': 'huggingface_hub',
  'losses': 'jax',
  'models': 'flax jax numpy safetensors torch',
  'sampling': 'jax numpy',
  'schema': '',
  'values': '',
  'config': 'ml_collections',
}

# Libraries that belong to one room.
ONLY_IN = {
  'datasets': 'data',
  'flax': 'models',
  'grain': 'data',
  'huggingface_hub': 'hub',
  'orbax': 'checkpoints',
  'sentencepiece': 'data',
  'seqio': 'data',
  'tensorflow': 'data',
  'torch': 'models',
  'transformers': 'data',
}

# Libraries that take long to import: only inside the functions that need them.
SLOW = {
  'datasets',
  'huggingface_hub',
  'matplotlib',
  'nltk',
  'pandas',
  'rouge_score',
  'sacrebleu',
  'sentencepiece',
  'seqio',
  'tensorboardX',
  'tensorflow',
  'torch',
  'transformers',
}


@functools.cache
def parse(path):
  return ast.parse(path.read_text(encoding='utf-8'))


def imports(tree, nested=True):
  """Yields the dotted names that a module imports; `nested`: functions too."""
  functions = (ast.FunctionDef, ast.AsyncFunctionDef)
  later = set()
  if not nested:
    bodies = [node for node in ast.walk(tree) if isinstance(node, functions)]
    later = {inner for body in bodies for inner in ast.walk(body)}
  for node in ast.walk(tree):
    if node in later:
      continue
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'imports are absolute'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def outside(tree, nested=True):
  """Returns the libraries that a module imports, by their first name."""
  names = {name.split('.')[0] for name in imports(tree, nested)}
  return names - set(sys.stdlib_module_names) - {'kdjax', 'configs'}


def room(path):
  """Returns the room of a file: `losses` for kdjax/losses/masked.py."""
  return path.relative_to(ROOT / 'kdjax').with_suffix('').parts[0]


def label(path):
  return str(path.relative_to(ROOT))


def test_rooms_are_listed_from_the_lowest_to_the_highest():
  above = set()
  for name, allowed in ROOMS.items():
    later = {each.split('.')[0] for each in allowed.split()} - above
    assert not later, f'{name} would import {later}, which stand below it'
    above.add(name)
  actual = {room(path) for path in SOURCES} - {'__init__'}
  assert actual == set(ROOMS), 'every module stands in ROOMS, and no other'


def test_imports_go_one_way():
  wrong = []
  for path in SOURCES:
    here = room(path)
    allowed = {'types', here, *ROOMS.get(here, '').split()}
    for name in imports(parse(path)):
      target = name.removeprefix('kdjax.')
      opened = any(f'{target}.'.startswith(f'{each}.') for each in allowed)
      if name.startswith('kdjax.') and not opened:
        wrong.append(f'{label(path)}: {here} may not import {target}')
  assert not wrong, '\n'.join(wrong)


def test_libraries_stay_in_their_rooms():
  wrong = []
  for path in SOURCES:
    here, tree = room(path), parse(path)
    found = outside(tree)
    strange = {name for name in found if ONLY_IN.get(name, here) != here}
    if here in LIBRARIES:
      strange |= found - set(LIBRARIES[here].split())
    wrong += [f'{label(path)}: {here} may not import {x}' for x in strange]
    wrong += [
      f'{label(path)}: import {x} inside the functions that need it'
      for x in outside(tree, nested=False) & SLOW
    ]
  assert not wrong, '\n'.join(wrong)


def test_configs_import_the_config_module_alone():
  known = ('configs.', 'kdjax.config', 'ml_collections', 'collections')
  wrong = [
    f'{label(path)}: a config is data, it may not import {name}'
    for path in CONFIGS
    for name in imports(parse(path))
    if not name.startswith(known)
  ]
  assert not wrong, '\n'.join(wrong)


def run(code):
  """Runs code in a fresh interpreter and returns what it prints."""
  command = [sys.executable, '-c', code]
  return subprocess.run(
    command, cwd=ROOT, check=True, capture_output=True, text=True
  ).stdout


def test_import_kdjax_costs_nothing_over_jax():
  seconds, *modules = run(
    'import jax, sys, time\n'
    'before = set(sys.modules)\n'
    'start = time.perf_counter()\n'
    'import kdjax\n'
    'print(time.perf_counter() - start, *set(sys.modules) - before)'
  ).split()
  assert modules == ['kdjax']
  # About a millisecond; the bound is the promise, far beyond a busy machine.
  assert float(seconds) < 0.5


def test_losses_sampling_and_models_import_nothing_heavy():
  modules = run(
    'import sys\n'
    'from kdjax import losses, models, sampling\n'
    'print(*sys.modules)'
  ).split()
  assert not (SLOW | {'grain', 'ml_collections', 'orbax'}) & set(modules)


def test_losses_import_no_neural_network_library():
  modules = run('import sys, kdjax.losses\nprint(*sys.modules)').split()
  assert not {'flax', 'kdjax.models', 'kdjax.sampling'} & set(modules)


def test_files_and_functions_are_short():
  wrong = []
  for path in ALL:
    lines = path.read_text(encoding='utf-8').count('\n')
    if lines > 400:
      wrong.append(f'{label(path)}: {lines} lines, find the two files in it')
    if path.stem == 'utils':
      wrong.append(f'{label(path)}: name it by what it is about')
    for node in ast.walk(parse(path)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        length = node.end_lineno - node.lineno + 1
        if length > 80:
          wrong.append(f'{label(path)}: {node.name} has {length} lines')
  assert not wrong, '\n'.join(wrong)


@pytest.fixture(scope='module')
def metadata():
  """What setup.py hands to setuptools."""
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setuptools, 'setup', found.update)
    runpy.run_path(str(ROOT / 'setup.py'))
  return found


def distributions(requirements):
  """Returns the names in a list of requirements, normalised."""
  names = (re.match(r'[\w.-]+', each).group() for each in requirements)
  return {name.lower().replace('_', '-') for name in names}


def undeclared(paths, requirements):
  """Returns the imported libraries that no requirement provides."""
  declared = distributions(requirements)
  providers = importlib.metadata.packages_distributions()
  imported = set().union(*(outside(parse(path)) for path in paths))
  return {
    name
    for name in imported
    if not declared & distributions(providers.get(name, [name]))
  }


def test_everything_imported_is_declared(metadata):
  extras = metadata['extras_require']
  alone = (
    'types',
    'hub',
    'constraints',
    'copied_layers',
    'losses',
    'models',
    'sampling',
  )
  base = [path for path in SOURCES if room(path) in alone]
  # What models import besides is asked for by name where it is missing.
  optional = {'huggingface_hub', 'torch'}
  assert undeclared(base, metadata['install_requires']) == optional
  assert undeclared([*SOURCES, *CONFIGS], extras['train']) == {'torch'}
  own = {'benchmarks', 'launch', 'setuptools', 'tests'}
  assert undeclared(ALL, extras['test']) == own


def test_assets_are_packaged(metadata):
  package = ROOT / 'kdjax'
  patterns = metadata['package_data']['kdjax']
  packaged = {p for each in patterns for p in package.glob(f'{each}/*')}
  assets = {p for p in package.rglob('assets/**/*') if p.is_file()}
  assert assets and assets <= packaged
  assert metadata['packages'] and all(
    name.split('.')[0] == 'kdjax' for name in metadata['packages']
  )
