"""One HTML file: the page's parts and its data, with nothing to load."""

import base64
import hashlib
import os
import pathlib
from typing import Any

from kdjax import files
from kdjax.page import collect, samples

ASSETS = pathlib.Path(__file__).parent / 'assets'

# In the order in which they need each other.
SCRIPTS = (
  'dom.js',
  'state.js',
  'theme.js',
  'scale.js',
  'tip.js',
  'forest.js',
  'chart.js',
  'curves.js',
  'heat.js',
  'table.js',
  'tokens.js',
  'examples.js',
  'article.js',
  'browser.js',
  'keys.js',
  'main.js',
)


def write(folder: str | os.PathLike) -> pathlib.Path:
  """Writes `report.html` of a run's workdir or a sweep's folder.

  Args:
    folder: holds config.json (a run) or sweep.json (a sweep). What isn't there
      yet, the page says so.

  Returns:
    The path of the page.

  Raises:
    ValueError: the folder is neither.
  """
  folder = pathlib.Path(folder)
  path = folder / 'report.html'
  text = html(collect.collect(folder))
  # Half a surrogate pair has no UTF-8; its escape is good JSON.
  files.write(path, text.encode('utf-8', 'backslashreplace'))
  return path


def html(data: dict[str, Any]) -> str:
  """Returns the page. Its policy lets nothing load, and runs no other script.

  So a prompt that got out of its text could do nothing, and neither opening nor
  reading the page tells anybody.
  """
  scripts = [_asset(name) for name in SCRIPTS]
  parts = {
    '{{policy}}': _policy(scripts),
    '{{style}}': _asset('page.css'),
    '{{scripts}}': '\n'.join(f'<script>{each}</script>' for each in scripts),
    '{{data}}': escaped(samples.dumps(data)),
  }
  # Data last: what it holds is never taken for a place to fill.
  text = _asset('page.html')
  for place, part in parts.items():
    before, _, after = text.partition(place)
    text = before + part + after
  return text


def escaped(text: str) -> str:
  """Returns JSON that ends no script element and breaks no line."""
  for unsafe in '<>&\u2028\u2029':
    text = text.replace(unsafe, f'\\u{ord(unsafe):04x}')
  return text


def _asset(name: str) -> str:
  return (ASSETS / name).read_text('utf-8')


def _policy(scripts: list[str]) -> str:
  digests = (hashlib.sha256(each.encode('utf-8')).digest() for each in scripts)
  allowed = ' '.join(
    f"'sha256-{base64.b64encode(each).decode()}'" for each in digests
  )
  return (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f'script-src {allowed}'
  )
