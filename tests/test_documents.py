"""README and CONTRIBUTING say what is so: their code and commands work."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from kdjax import recipes
from kdjax.data import tasks
from kdjax.models import families

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
CONTRIBUTING = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')


def blocks(text, language):
  """Returns the fenced code blocks of a language."""
  return re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)


def test_readme_code_prints_what_it_says():
  for code in blocks(README, 'python'):
    expected = re.findall(r'^print.*\n# (.*)$', code, re.M)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(code, {})
    assert printed.getvalue().splitlines() == expected


def test_ci_runs_the_command_of_the_readme():
  (command,) = [b for b in blocks(README, 'bash') if './check' in b]
  script = (ROOT / '.ci' / 'run').read_text()
  assert script.endswith(f'\n{command.strip()} || exit\n./check -m slow\n')
  workflow = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
  assert 'run: bash .ci/run\n' in workflow
  assert command in CONTRIBUTING
  for path in ('check', '.ci/run'):
    assert os.access(ROOT / path, os.X_OK), f'chmod +x {path}'


def test_ci_ends_where_the_installation_fails(tmp_path):
  shutil.copytree(ROOT / '.ci', tmp_path / '.ci')
  commands = {
    'check': 'touch checked',
    'bin/chromium': '',
    'bin/chromedriver': '',
    'bin/pip': 'exit 3',
    'bin/python3': 'mkdir "$3/bin"; touch "$3/bin/activate"',
  }
  for name, text in commands.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
  environment = {'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}'}
  done = subprocess.run(['bash', tmp_path / '.ci/run'], env=environment)
  assert done.returncode == 3
  assert not (tmp_path / 'checked').exists()


def test_readme_names_everything_by_its_name():
  names = {*recipes.RECIPES, *tasks.names()} - {'debsum_windows'}
  missing = {name for name in names if f'`{name}`' not in README}
  configs = {p.name for p in (ROOT / 'configs').glob('*_*.py')}
  missing |= {name for name in configs if f'`{name}`' not in README}
  rooms = {
    p.name for p in (ROOT / 'kdjax').glob('[a-z]*') if p.name != 'assets'
  }
  missing |= {name for name in rooms if not re.search(rf'\b{name}\b', README)}
  assert not missing, f'README.md does not name {sorted(missing)}'
  prose = re.sub(r'[ -]', '', README.lower())
  unnamed = {name for name in families.FAMILIES if name not in prose}
  assert not unnamed, f'README.md does not name the families {unnamed}'


RELIABILITY = 'tests/reliability'


@pytest.mark.parametrize(
  'name', ['README.md', 'CONTRIBUTING.md', 'RELIABILITY.md']
)
def test_paths_exist(name):
  text = (ROOT / name).read_text(encoding='utf-8')
  found = re.findall(r'(?:kdjax|configs|tests)/[\w./]+\.(?:py|md)', text)
  found += re.findall(r'\]\((?!http|#)([^)]+)\)', text)
  made = set(sections('\n'.join(blocks(text, 'python'))))
  missing = {p for p in found if not (ROOT / p).exists()} - {p for p, _ in made}
  assert found and not missing, f'{name} names {sorted(missing)}'


def test_every_promise_is_listed_with_its_tests():
  text = (ROOT / 'RELIABILITY.md').read_text(encoding='utf-8')
  promises = re.findall(r'^### (\d+)\. ', text, re.M)
  assert promises == [str(i) for i in range(1, 12)]
  tests = {p.name for p in (ROOT / 'tests' / 'reliability').glob('test_*.py')}
  missing = {name for name in tests if f'({RELIABILITY}/{name})' not in text}
  assert not missing, f'RELIABILITY.md does not name {sorted(missing)}'
  (command,) = blocks(text, 'bash')
  assert f'{RELIABILITY} --full' in command


def sections(code):
  """Yields (path, registry) of each part of an example; see `apply`."""
  for registry, path in re.findall(r'^# (?:(\w+) in )?(\S+\.py)$', code, re.M):
    yield path, registry


def apply(code, root):
  """Puts an example of CONTRIBUTING.md into the files that it names.

  '# FILE' stands before code for that file, '# NAME in FILE' before entries of
  NAME: a dict, a tuple, or a function that returns a dict. Code goes before the
  first NAME of its file that the example extends, or else to the end.
  """
  parts = re.split(r'^# (?:\w+ in )?\S+\.py\n', code, flags=re.M)[1:]
  places = list(sections(code))
  for (path, registry), text in zip(places, parts, strict=True):
    file = root / path
    old = file.read_text() if file.exists() else ''
    names = [name for other, name in places if other == path and name]
    if not names:
      file.write_text(f'{old}\n\n{text}')
      continue
    extended = registry or names[0]
    (opening,) = re.findall(
      rf'^(?:{extended}\b.*= [{{(]|def {extended}\((?s:.*?)^  return {{)\n',
      old,
      re.M,
    )
    new = opening + text if registry else text + opening
    file.write_text(old.replace(opening, new))


def test_contributing_examples_pass_their_own_tests(tmp_path):
  pytest.importorskip('torch')  # which a model's family is compared with
  for folder in ('kdjax', 'tests'):
    ignore = shutil.ignore_patterns('assets', '__pycache__')
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
  shutil.copy(ROOT / 'pyproject.toml', tmp_path)
  examples = blocks(CONTRIBUTING, 'python')
  for code in examples:
    apply(code, tmp_path)
  wanted = re.findall(r'^def (test_\w+)', '\n'.join(examples), re.M)
  assert len(wanted) == 5
  files = {p for code in examples for p, _ in sections(code)}
  files = sorted(p for p in files if p.startswith('tests/'))
  parity = 'test_logits_match_transformers and ministral'
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', *files]
  command += ['kdjax/losses/divergences.py', '-k']
  names = ' or '.join([*wanted, 'divergences.jeffreys', f'({parity})'])
  result = subprocess.run(
    [*command, names], cwd=tmp_path, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert f'{len(wanted) + 2} passed' in result.stdout
