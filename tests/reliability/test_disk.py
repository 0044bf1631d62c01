"""Promise 5: a disk that is full or read-only costs no more than a start."""

import contextlib
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from tests.reliability import disturbed
from tests.reliability.jobs import TINY


def mount(*args):
  return subprocess.run(['mount', *args], capture_output=True)


@contextlib.contextmanager
def disk(folder, room):
  """A small disk of so many bytes, which only root can have."""
  folder.mkdir()
  made = mount('-t', 'tmpfs', '-o', f'size={room}', 'tmpfs', str(folder))
  if made.returncode:
    pytest.skip(f'no disk can be mounted: {made.stderr.decode().strip()}')
  try:
    yield folder
  finally:
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


def size(folder):
  """The bytes that files take, in pages as the small disk counts them."""
  files = (path for path in pathlib.Path(folder).rglob('*') if path.is_file())
  return sum(4096 * -(-path.stat().st_size // 4096) for path in files)


@pytest.fixture(scope='module')
def whole(command, tiny_data, tmp_path_factory):
  """The workdir of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('whole')
  config = f'{disturbed.JOBS}:{tiny_data},student'
  disturbed.finish(command(f'--workdir={workdir}', config=config))
  return workdir


def assert_told(process, folder):
  """Asserts that a process said what was wrong, and nothing more."""
  _, said = process.communicate(timeout=300)
  assert process.returncode == 74, said
  assert 'Traceback' not in said
  last = said.strip().split('\n')[-1]
  assert last.startswith('kdjax: ') and str(folder) in last
  assert 'the same command goes on' in last
  return last


@pytest.mark.slow
def test_a_full_disk_is_told_and_what_is_whole_stays(
  command, tiny_data, whole, tmp_path, tries, tried
):
  config = f'{disturbed.JOBS}:{tiny_data},student'
  # From next to nothing to nearly all that the run leaves.
  rooms = np.linspace(0.02, 0.9, tries(2, 12)) * size(whole)
  for i, room in enumerate(rooms):
    with disk(tmp_path / str(i), int(room)) as folder:
      workdir = folder / 'run'
      flag = f'--workdir={workdir}'
      told = assert_told(command(flag, config=config), folder)
      assert 'No space left on device' in told
      before = disturbed.saved(workdir)
      mount('-o', 'remount,size=1g', str(folder))
      log = disturbed.finish(command(flag, config=config))
      if before:
        assert f'resumed at step {before[-1]}' in log
      assert 'damaged' not in log
      disturbed.assert_same(workdir, whole)
  tried(5, 'a disk that fills up during a run', len(rooms))


# The tiny config. Its run finds so many bytes left when it exports the student.
_FULL = f"""
import os, runpy
from kdjax import report

def get_config(args):
  room, data = args.split(',')
  export = report.export

  def full(run, directory, *args):
    disk = os.statvfs(directory.parent)
    size = disk.f_bavail * disk.f_frsize - int(room)
    (directory.parents[1] / 'others').write_bytes(bytes(size))
    export(run, directory, *args)

  report.export = full
  return runpy.run_path({str(TINY)!r})['get_config'](data)
"""


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_export_is_told(
  command, tiny_data, finished, tmp_path, contents, tries, tried
):
  config = tmp_path / 'full.py'
  config.write_text(_FULL)
  student = size(finished / 'student')
  # Too little for the weights, for the tokenizer, for its last file.
  rooms = np.linspace(4096, student - 4096, tries(3, 10)).astype(int)
  with disk(tmp_path / 'disk', 2**25) as folder:
    workdir = folder / 'run'
    shutil.copytree(finished, workdir)
    before = contents(workdir / 'student')
    for room in rooms:
      process = command(
        f'--workdir={workdir}', config=f'{config}:{room},{tiny_data}'
      )
      told = assert_told(process, workdir / 'student')
      assert 'No space left on device' in told
      assert contents(workdir / 'student') == before
      (folder / 'others').unlink()
    disturbed.finish(command(f'--workdir={workdir}'))
    disturbed.assert_same(workdir, finished)
  tried(5, 'a disk that fills up during a run', len(rooms))


@pytest.mark.slow
def test_a_disk_that_is_full_under_a_profile_is_told(command, tmp_path, tried):
  with disk(tmp_path / 'disk', 300_000) as folder:
    process = command(
      '--config.profile=3-6',
      '--config.checkpoint.every=1000',
      '--config.eval.every=0',
      '--config.checkpoint.export=last',
      f'--workdir={folder}/run',
    )
    told = assert_told(process, folder / 'run' / 'profile')
    assert 'No space left on device' in told
  tried(5, 'a disk that fills up during a run', 1)


@pytest.mark.slow
def test_a_read_only_disk_is_told_and_the_run_goes_on_later(
  command, tiny_data, whole, tmp_path, contents, tries, tried
):
  config = f'{disturbed.JOBS}:{tiny_data},student'
  with disk(tmp_path / 'disk', 2**30) as folder:
    workdir = folder / 'run'
    start = lambda: command(f'--workdir={workdir}', config=config)
    moments = np.linspace(0, 280, tries(1, 5)).astype(int)
    for moment in moments:
      process = start()
      disturbed.reach(workdir, moment, process)
      process.kill()
      process.communicate()
      before = contents(folder)
      # Before, files were open for writing, and the disk would have refused.
      assert not mount('-o', 'remount,ro', str(folder)).returncode
      assert 'Read-only file system' in assert_told(start(), folder)
      assert contents(folder) == before
      assert not mount('-o', 'remount,rw', str(folder)).returncode
    disturbed.finish(start())
    disturbed.assert_same(workdir, whole)
  tried(5, 'a disk that became read-only', len(moments))
