"""Promise 11: nothing that a user downloads is unpickled, evaluated, imported.

Whoever adds to `OWN` shows that what runs is the user's own, named on the
command line or in the config, and never found in a file that came with weights
or data.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted(
  path
  for room in ('kdjax', 'launch', 'configs')
  for path in (ROOT / room).rglob('*.py')
)
PROMISE = 11

# What runs code, by design: the user's own files, and where they are run.
OWN = {
  ('kdjax/rewards.py', 'importlib.import_module'),  # a reward, `module:name`
  ('kdjax/sweep/axes.py', 'runpy.run_path'),  # the config that is swept
}
# Modules whose purpose is to make objects, or code, of bytes.
MODULES = {
  'cloudpickle',
  'code',
  'codeop',
  'dill',
  'jax.export',
  'joblib',
  'jsonpickle',
  'marshal',
  'pickle',
  'shelve',
  'xml',
  'yaml',
}
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
# Calls by the end of their dotted name.
CALLS = {
  'hub.load',
  'import_module',
  'jit.load',
  'load_module',
  'load_model',
  'os.popen',
  'os.system',
  'read_pickle',
  'run_module',
  'run_path',
  'saved_model.load',
  'spec_from_file_location',
  'extractall',
  'unpack_archive',
}
# Keywords with the one value that they may have.
KEYWORDS = {
  'allow_pickle': False,
  'shell': False,
  'trust_remote_code': False,
}


def dotted(node):
  """Returns 'a.b.c' of a name or an attribute, '' of another expression."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value)}.{node.attr}'
  return ''


def imported(node):
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom) and node.module:
    names = [f'{node.module}.{alias.name}' for alias in node.names]
    return [node.module, *names]
  return []


def ends(name, found):
  return any(f'.{name}'.endswith(f'.{each}') for each in found)


def calls(node):
  """Yields what is wrong with a call."""
  name = dotted(node.func)
  if name in BUILTINS or name.startswith('builtins.') or ends(name, CALLS):
    yield name
  keywords = {k.arg: k.value for k in node.keywords}
  for key in set(keywords) & set(KEYWORDS):
    value = keywords[key]
    if not isinstance(value, ast.Constant) or value.value is not KEYWORDS[key]:
      yield f'{name}({key}=...)'
  if name == 'torch.load':
    value = keywords.get('weights_only')
    if not isinstance(value, ast.Constant) or value.value is not True:
      yield 'torch.load without weights_only=True'


def found(tree):
  """Yields all that would run, or make objects of, what a file holds."""
  for node in ast.walk(tree):
    for name in imported(node):
      parts = name.split('.')
      prefixes = {'.'.join(parts[: i + 1]) for i in range(len(parts))}
      if prefixes & MODULES:
        yield name
      # As a name of its own it would escape the look at calls.
      if ends(name, CALLS) or name in ('torch.load', 'numpy.load'):
        yield name
    if isinstance(node, ast.Call):
      yield from calls(node)


def test_nothing_runs_what_was_downloaded(tried):
  wrong, used = [], set()
  for path in SOURCES:
    where = path.relative_to(ROOT).as_posix()
    for what in found(ast.parse(path.read_text(encoding='utf-8'))):
      if (where, what) in OWN:
        used.add((where, what))
      else:
        wrong.append(f'{where}: {what}')
  assert not wrong, '\n'.join(wrong)
  assert used == OWN, f'{OWN - used} is there no more: take it out of OWN'
  tried(
    PROMISE, 'a source file without a way to run what it reads', len(SOURCES)
  )


@pytest.mark.parametrize(
  'code',
  [
    'import pickle',
    'from pickle import loads as read',
    'import joblib.numpy_pickle',
    'from xml.etree import ElementTree',
    'import yaml',
    'eval(x)',
    'builtins.exec(x)',
    'np.load(x, allow_pickle=True)',
    'np.load(x, allow_pickle=flag)',
    'torch.load(x)',
    'torch.load(x, weights_only=flag)',
    'from torch import load',
    'torch.jit.load(x)',
    'pandas.read_pickle(x)',
    'importlib.import_module(x)',
    'from importlib import import_module',
    'AutoTokenizer.from_pretrained(x, trust_remote_code=True)',
    'f(x, trust_remote_code=given)',
    'subprocess.run(x, shell=True)',
    'os.system(x)',
    'tarfile.open(x).extractall()',
  ],
)
def test_every_way_is_seen(code):
  assert list(found(ast.parse(code)))


@pytest.mark.parametrize(
  'code',
  [
    'np.load(x, allow_pickle=False)',
    'np.load(x)',
    'torch.load(x, weights_only=True)',
    're.compile(x)',
    'model.eval()',
    'json.load(x)',
    'f(x, trust_remote_code=False)',
  ],
)
def test_what_is_safe_is_not(code):
  assert not list(found(ast.parse(code)))
