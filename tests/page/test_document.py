"""One file that loads nothing, and shows what it holds as text."""

import base64
import hashlib
import html.parser
import json
import re
import subprocess
import sys

import pytest

from kdjax import page
from kdjax.page import document
from tests.page import folders


class _Parser(html.parser.HTMLParser):
  """Collects tags, and what scripts hold by their type."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.scripts, self._type = [], [], None
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag == 'script':
      self._type = dict(attrs).get('type', 'script')
      self.scripts.append((self._type, ''))

  def handle_data(self, data):
    if self._type:
      kind, text = self.scripts.pop()
      self.scripts.append((kind, text + data))

  def handle_endtag(self, tag):
    self._type = None


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  path = page.write(folders.run(tmp_path_factory.mktemp('run')))
  return path, _Parser(path.read_text('utf-8'))


def test_the_page_lies_in_the_folder(written):
  path, _ = written
  assert path.name == 'report.html'
  assert not list(path.parent.glob('*.partial'))


def test_the_data_ends_no_script_and_comes_back_whole(written):
  _, parsed = written
  (data,) = [text for kind, text in parsed.scripts if kind != 'script']
  assert '<' not in data and '\u2028' not in data
  example = json.loads(data)['sets']['']['examples'][0]
  assert example['input'] == folders.NASTY


def test_the_policy_lets_only_its_own_scripts_run(written):
  _, parsed = written
  (policy,) = [
    attrs['content'] for tag, attrs in parsed.tags if 'http-equiv' in attrs
  ]
  assert "default-src 'none'" in policy
  digests = {
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for kind, text in parsed.scripts
    if kind == 'script'
  }
  assert set(re.findall(r"'sha256-(.+?)'", policy)) == digests
  assert len(digests) == len(document.SCRIPTS)


def test_nothing_is_loaded_from_elsewhere(written):
  _, parsed = written
  for _, attrs in parsed.tags:
    assert 'src' not in attrs
    assert attrs.get('href', '#').startswith(('#', 'data:'))


def test_every_asset_is_in_the_page():
  assets = {path.name for path in document.ASSETS.iterdir()}
  assert assets == {*document.SCRIPTS, 'page.html', 'page.css'}


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path):
  folders.run(tmp_path)
  line = folders.example_lines({'student after': 20.0}, 1)[0]
  (tmp_path / 'examples.jsonl').write_text(
    json.dumps(line | {'input': 'half \ud83d'}) + '\n'
  )
  assert 'half \\ud83d' in page.write(tmp_path).read_text('utf-8')


def test_a_sweep_of_36_settings_stays_below_2_mb(tmp_path):
  scores = {(i / 10, j / 10): [20.0 + i] for i in range(6) for j in range(6)}
  path = page.write(folders.sweep(tmp_path, scores, examples=60))
  assert path.stat().st_size < 2e6


def test_importing_the_page_imports_no_jax():
  code = 'import sys, kdjax.page; print("jax" in sys.modules)'
  found = subprocess.run(
    [sys.executable, '-c', code], check=True, capture_output=True, text=True
  )
  assert found.stdout.strip() == 'False'


def test_other_folders_are_refused(tmp_path):
  with pytest.raises(ValueError, match='neither a sweep nor a run'):
    page.write(tmp_path)
  assert not list(tmp_path.iterdir())
