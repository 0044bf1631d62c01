"""Shell scripts parse, and shellcheck has nothing to say about them."""

import pathlib
import subprocess
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SHELLCHECK = pathlib.Path(sysconfig.get_path('scripts')) / 'shellcheck'
SCRIPTS = [ROOT / 'check', *sorted((ROOT / 'launch').glob('*.sh'))]


def shellcheck(*paths):
  return subprocess.run(
    [SHELLCHECK, *paths], capture_output=True, text=True, check=False
  )


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_has_no_known_mistake(path):
  subprocess.run(['bash', '-n', path], check=True)
  found = shellcheck(path)
  assert found.returncode == 0, found.stdout


def test_shellcheck_finds_a_mistake(tmp_path):
  path = tmp_path / 'a.sh'
  path.write_text('#!/usr/bin/env bash\nrm -r $1/*\n')
  assert 'SC2086' in shellcheck(path).stdout
