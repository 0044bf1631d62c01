"""Notebooks run from top to bottom, and are kept without outputs."""

import pathlib
import re

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
each = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
  notebook = nbformat.read(path, as_version=4)
  return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_there_are_notebooks():
  stems = {path.stem for path in NOTEBOOKS}
  assert stems >= {'losses_tour', 'gkd_in_one_page'}


@each
def test_a_notebook_is_valid_and_has_no_outputs(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert notebook.metadata.kernelspec.name == 'python3'
  for cell in cells(path, 'code'):
    assert cell.source.strip(), 'an empty cell'
    # Outputs would go stale, and pictures swell every change of the file.
    assert not cell.outputs and cell.execution_count is None


@each
def test_the_first_code_installs_kdjax_where_it_is_not(path):
  first = cells(path, 'code')[0].source
  assert "importlib.util.find_spec('kdjax') is None" in first
  assert re.search(r"^  %pip install -q 'kdjax\[\w+\]'$", first, re.M)


@each
def test_a_notebook_names_no_place_of_one_machine(path):
  text = path.read_text(encoding='utf-8')
  places = re.findall(r'/(?:home|root|tmp|Users|work|mnt|data)/|[A-Z]:\\', text)
  assert not places


@each
def test_text_says_what_the_code_is_for(path):
  kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
  assert kinds[0] == kinds[-1] == 'markdown'
  assert ('code',) * 3 not in list(zip(kinds, kinds[1:], kinds[2:]))


@pytest.mark.slow
@each
def test_a_notebook_runs_in_a_fresh_kernel(path, tmp_path, monkeypatch):
  import nbclient

  # The notebooks' own folder is not on the path: kdjax must be installed, or
  # stand where a checkout has it.
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  client = nbclient.NotebookClient(
    nbformat.read(path, as_version=4),
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  )
  notebook = client.execute()
  last = [cell for cell in notebook.cells if cell.cell_type == 'code'][-1]
  assert last.outputs, 'the last cell shows something'
