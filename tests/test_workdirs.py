"""A workdir belongs to one config, and to one writer at a time."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from kdjax import workdirs


def _claim(*args):
  with workdirs.claimed(*args):
    pass


def test_a_workdir_is_of_one_config(tmp_path):
  config = {'seed': 1, 'optimizer': {'name': 'adamw'}, 'log': {'every': 5}}
  _claim(tmp_path / 'run', config)
  _claim(tmp_path / 'run', config)
  written = (tmp_path / 'run' / 'config.json').read_text()
  other = {'optimizer': {'name': 'sgd'}, 'log': {'every': 6}, 'steps': (1, 2)}
  with pytest.raises(ValueError) as error:
    _claim(tmp_path / 'run', other, ['log.*'])
  message = str(error.value)
  for line in (
    'optimizer.name: "adamw" → "sgd"',
    'seed: 1 → (absent)',
    'steps: (absent) → [1, 2]',
    '--workdir',
  ):
    assert line in message
  assert 'log.every' not in message
  assert (tmp_path / 'run' / 'config.json').read_text() == written
  _claim(tmp_path / 'run', {**config, 'log': {'every': 6}}, ['log.*'])
  assert '6' in (tmp_path / 'run' / 'config.json').read_text()


def test_a_bucket_and_a_file_are_refused(tmp_path):
  with pytest.raises(ValueError, match='gs://a/b: give a directory'):
    workdirs.check('gs://a/b', {'seed': 1})
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='is a file: give a directory'):
    workdirs.check(str(tmp_path / 'file'), {'seed': 1})


def test_checkpoints_of_unknown_origin_are_refused(tmp_path):
  (tmp_path / 'checkpoints' / '100').mkdir(parents=True)
  with pytest.raises(ValueError, match='no config.json'):
    workdirs.check(tmp_path, {'seed': 1})
  for content in ('{"seed":', '[1]', '[' * 9999):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match='not JSON of a config'):
      workdirs.check(tmp_path, {'seed': 1})


def test_the_second_writer_is_told_of_the_first(tmp_path):
  workdirs.check_free(tmp_path / 'nowhere')
  with workdirs.locked(tmp_path):
    for refused in (
      workdirs.check_free,
      lambda path: workdirs.locked(path).__enter__(),
    ):
      with pytest.raises(
        ValueError, match=f'process {os.getpid()} on '
      ) as error:
        refused(tmp_path)
    assert 'give another --workdir' in str(error.value)
  workdirs.check_free(tmp_path)
  with workdirs.locked(tmp_path):
    pass


_HOLDER = """
import sys, time
from kdjax import workdirs
with workdirs.locked(sys.argv[1]):
  print('locked', flush=True)
  time.sleep(600)
"""


def test_a_writer_that_was_killed_holds_nothing(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', _HOLDER, str(tmp_path)], stdout=subprocess.PIPE
  )
  assert holder.stdout.readline() == b'locked\n'
  with pytest.raises(ValueError, match=f'process {holder.pid} on '):
    workdirs.check_free(tmp_path)
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  workdirs.check_free(tmp_path)


def test_what_fails_under_a_lock_is_not_named_after_it(tmp_path):
  with pytest.raises(OSError) as error, workdirs.locked(tmp_path):
    raise OSError(errno.ENOSPC, 'No space left on device')
  assert error.value.filename is None


def test_where_nothing_can_be_locked_a_warning_says_so(
  tmp_path, monkeypatch, caplog
):
  def unsupported(*args):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', unsupported)
  with workdirs.locked(tmp_path):
    assert json.dumps('No locks available')[1:-1] in caplog.text


def test_what_a_run_was_trained_on_stays(tmp_path):
  entry = {'examples': 3, 'left_out': {}}
  begun = {'train': {**entry, 'sha256': 'a'}, 'test': entry}
  workdirs.note_data(tmp_path, begun, resumed=False)
  # Other splits are free to change.
  grown = {**begun, 'test': {**entry, 'examples': 4}}
  workdirs.note_data(tmp_path, grown, resumed=True)
  for changed in (
    {'train': {**entry, 'sha256': 'b'}},
    {'train': {**begun['train'], 'teacher_responses': 'c'}},
    {},
  ):
    with pytest.raises(ValueError, match='other data.*\n  train[.:].*→'):
      changed['test'] = entry
      workdirs.note_data(tmp_path, changed, resumed=True)
  assert json.loads((tmp_path / 'data.json').read_text()) == grown
  (tmp_path / 'data.json').write_text('{')
  with pytest.raises(ValueError, match='json is not JSON of what a run read'):
    workdirs.note_data(tmp_path, begun, resumed=True)
  workdirs.note_data(tmp_path, begun, resumed=False)
