"""Where models are looked for, and what is said when they aren't there."""

import errno
import http.server
import json
import os
import subprocess
import sys
import threading
import types

import pytest

from kdjax import hub


def test_directories_are_taken_as_they_are(tmp_path):
  assert hub.locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize('path', ['/no/such/model', './no_such', 'a/b/c'])
def test_a_path_that_is_missing_asks_no_hub(path, monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: pytest.fail('asked the hub'))
  with pytest.raises(FileNotFoundError, match='no model directory'):
    hub.locate(path)


def test_without_network_the_error_names_the_embedded_way(monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: False)
  monkeypatch.setattr(hub, 'WAITS', ())
  with pytest.raises(FileNotFoundError, match=r'gkd_xsum\.py:embedded') as e:
    hub.locate('google/t5-xl-lm-adapt')
  assert "'google/t5-xl-lm-adapt'" in str(e.value)
  assert 'no network' in str(e.value)


def test_an_unknown_shipped_model_lists_those_there_are(monkeypatch, tmp_path):
  (tmp_path / 'one').mkdir()
  monkeypatch.setattr(hub, 'EMBEDDED', tmp_path)
  assert hub.locate('kdjax:one') == tmp_path / 'one'
  with pytest.raises(FileNotFoundError, match=r"kdjax:two.*'kdjax:one'"):
    hub.locate('kdjax:two')


class Answer(OSError):
  """What the hub's client raises: an error that holds the answer."""

  def __init__(self, status):
    super().__init__(f'answered {status}')
    self.response = types.SimpleNamespace(status_code=status)


@pytest.fixture
def waited(monkeypatch):
  """The waits between tries, none of which is waited out."""
  import huggingface_hub

  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
  monkeypatch.setattr(hub, 'answers', lambda: True)
  found = []
  monkeypatch.setattr(hub.time, 'sleep', found.append)
  return found


def failing(*errors):
  """Returns a function that raises the errors in turn, then gives 'it'."""
  left = list(errors)

  def get(offline):
    assert not offline
    if left:
      raise left.pop(0)
    return 'it'

  return get


@pytest.mark.parametrize(
  'error',
  [Answer(429), Answer(500), Answer(503), ConnectionError(), TimeoutError()],
)
def test_what_passes_is_tried_again(error, waited, caplog):
  assert hub.fetch('a/b', failing(error)) == 'it'
  assert waited == [hub.WAITS[0]]
  assert 'a/b' in caplog.text and 'again in 2 s' in caplog.text
  waited.clear()
  with pytest.raises(type(error)):
    hub.fetch('a/b', failing(*[error] * 3))
  assert waited == [2.0, 8.0]
  assert hub.fetch('a/b', failing(error, error)) == 'it'
  waited.clear()
  with pytest.raises(type(error)):
    hub.fetch('a/b', failing(error), patient=False)
  assert not waited


@pytest.mark.parametrize(
  'error', [Answer(401), Answer(403), Answer(404), ValueError('no such config')]
)
def test_what_stays_is_not(error, waited):
  with pytest.raises(type(error)):
    hub.fetch('a/b', failing(error))
  assert not waited


def test_causes_tell_what_happened(waited):
  wrapped = OSError('cannot load')
  wrapped.__cause__ = Answer(503)
  assert hub.fetch('a/b', failing(wrapped)) == 'it'
  assert len(waited) == 1
  assert hub.reason(wrapped) == 'Answer: answered 503'


def test_a_hub_that_does_not_answer_is_asked_again(waited, monkeypatch):
  answers = [False, True]
  monkeypatch.setattr(hub, 'answers', lambda: answers.pop(0))

  def get(offline):
    if offline:
      raise FileNotFoundError('not in the local cache')
    return 'it'

  assert hub.fetch('a/b', get) == 'it'
  assert waited == [hub.WAITS[0]]


def test_offline_mode_is_not_waited_for(waited, monkeypatch):
  import huggingface_hub

  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(hub, 'answers', lambda: False)
  with pytest.raises(FileNotFoundError, match='no network'):
    hub.locate('no-owner/no-model')
  assert not waited


def caused(error, cause):
  """Returns an error as if it was raised of another one."""
  error.__cause__ = cause
  return error


FULL = OSError(errno.ENOSPC, 'No space left on device')
DENIED = PermissionError(errno.EACCES, 'Permission denied', 'some/blob')


@pytest.mark.parametrize(
  'error, number, name',
  [
    (FULL, errno.ENOSPC, None),
    (DENIED, errno.EACCES, 'some/blob'),
    (caused(RuntimeError('cannot fetch'), FULL), errno.ENOSPC, None),
    (RuntimeError('I/O error (os error 28)'), errno.ENOSPC, None),
  ],
)
def test_a_disk_that_fails_is_no_fault_of_the_hubs(
  error, number, name, waited, monkeypatch
):
  import huggingface_hub

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', failing_as(error))
  with pytest.raises(OSError) as raised:
    hub.locate('some-owner/some-model')
  assert raised.value.errno == number
  name = name or huggingface_hub.constants.HF_HUB_CACHE
  assert raised.value.filename == name and name in str(raised.value)
  assert not waited


def failing_as(error):
  """Returns a function that raises an error whatever it is given."""

  def get(*unused, **options):
    raise error

  return get


@pytest.mark.parametrize(
  'error',
  [
    caused(ConnectionError('refused'), PermissionError(errno.EACCES, 'no')),
    caused(Answer(403), FULL),
    OSError('Permission denied'),
    FileNotFoundError(errno.ENOENT, 'No such file', 'config.json'),
  ],
)
def test_what_is_no_fault_of_the_disks(error, waited, monkeypatch):
  import huggingface_hub

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', failing_as(error))
  with pytest.raises(FileNotFoundError, match='cannot fetch') as raised:
    hub.locate('some-owner/some-model')
  assert raised.value.errno is None


FILES = {'config.json': b'{"model_type": "t5"}'}
COMMIT = '0' * 40


class Hub(http.server.BaseHTTPRequestHandler):
  """A hub of one model, which is out of order at first."""

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    path = self.path.partition('?')[0]
    if 'model' not in path:
      return self.give(200, b'')
    self.server.asked.append(path)
    if len(self.server.asked) <= self.server.failures:
      return self.give(503, b'')
    if path.startswith(('/api/models/own/model/revision', '/api/models/gone')):
      found = {'id': 'own/model', 'sha': COMMIT, 'siblings': []}
      known = 'gone' not in path
      return self.give(200 if known else 404, json.dumps(found).encode())
    if '/tree/' in path:
      tree = [
        {'type': 'file', 'path': k, 'size': len(v), 'oid': COMMIT}
        for k, v in FILES.items()
      ]
      return self.give(200, json.dumps(tree).encode())
    return self.give(200, FILES[path.rpartition('/')[2]])

  def give(self, status, content):
    self.send_response(status)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('ETag', f'"{COMMIT}"')
    self.send_header('X-Repo-Commit', COMMIT)
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(content)

  def log_message(self, *unused):
    pass


@pytest.mark.parametrize(
  'model, failures, tells',
  [
    ('own/model', 2, 'config.json'),
    ('own/model', 99, '503'),
    ('gone/model', 0, '404'),
  ],
)
def test_a_hub_out_of_order(model, failures, tells, tmp_path):
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
  server.asked, server.failures = [], failures
  threading.Thread(target=server.serve_forever, daemon=True).start()
  code = (
    'import sys; from kdjax import hub; hub.WAITS = (0.1, 0.1)\n'
    'try: print([p.name for p in hub.locate(sys.argv[1], False).iterdir()])\n'
    'except FileNotFoundError as error: print(error)\n'
  )
  env = {
    **os.environ,
    'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
    'HF_HOME': str(tmp_path),
    'HF_HUB_OFFLINE': '0',
    'NO_PROXY': '127.0.0.1',
    'no_proxy': '127.0.0.1',
  }
  out = subprocess.run(
    [sys.executable, '-c', code, model],
    env=env,
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  )
  server.shutdown()
  assert tells in out.stdout, out
  if failures == 2:
    assert out.stderr.count('trying again') == 2
  else:
    assert repr(model) in out.stdout
    assert len(server.asked) == (3 if failures else 1)


def test_members_lie_in_the_directory(tmp_path):
  folder = tmp_path / 'model'
  folder.mkdir()
  (folder / 'file').touch(), (tmp_path / 'outside').touch()
  (folder / 'inner').symlink_to('file')
  (folder / 'link').symlink_to('../outside')
  assert hub.member(folder, 'file') == folder / 'file'
  assert hub.member(folder, 'inner') == folder / 'inner'
  assert not hub.member(folder, 'missing').exists()
  for name in ('../outside', str(tmp_path / 'outside'), 'a/b', '..', '.', ''):
    with pytest.raises(ValueError, match=str(folder)):
      hub.member(folder, name)
  with pytest.raises(ValueError, match='link is a link to .*outside'):
    hub.member(folder, 'link')
  with pytest.raises(ValueError, match='link is a link to .*outside'):
    hub.check_members(folder)
  (folder / 'link').unlink()
  hub.check_members(folder)
  (folder / 'deeper').mkdir()
  (folder / 'deeper' / 'link').symlink_to('../../outside')
  with pytest.raises(ValueError, match='deeper/link is a link to .*outside'):
    hub.check_members(folder)


def test_json_errors_name_the_file(tmp_path):
  path = tmp_path / 'config.json'
  with pytest.raises(FileNotFoundError, match='config.json is missing'):
    hub.read_json(tmp_path, path.name)
  path.write_text('{"a": ')
  with pytest.raises(ValueError, match='config.json is not valid JSON'):
    hub.read_json(tmp_path, path.name)
