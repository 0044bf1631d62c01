"""What is found in a folder of checkpoints, and what a start makes of it."""

import errno
import os

import pytest

from kdjax import checkpoints
from kdjax.checkpoints import folder, seals


@pytest.fixture
def step(tmp_path):
  """Returns a function that makes the checkpoint of a step."""

  def make(number, sealed=True):
    path = tmp_path / 'checkpoints' / str(number)
    path.mkdir(parents=True)
    (path / 'x').write_text('x')
    if sealed:
      seals.write(path, {'step': number, 'metrics': None})
    return path

  return make


@pytest.mark.parametrize('number', [1001, 30_000])
def test_what_cannot_be_a_first_save_is_not_trained_over(
  number, step, tmp_path, contents
):
  (step(number) / seals.NAME).unlink()
  before = contents(tmp_path)
  with pytest.raises(ValueError, match=f'whole: step {number}: it has no seal'):
    checkpoints.Checkpoints(tmp_path, every=1000)
  assert contents(tmp_path) == before


@pytest.mark.parametrize('number', [3, 1000])
def test_a_first_save_that_was_cut_short_makes_room(number, step, tmp_path):
  step(number, sealed=False)
  assert folder.tidy(tmp_path / 'checkpoints', 1000) is None
  assert (tmp_path / 'damaged' / str(number)).is_dir()


def test_what_is_damaged_moves_to_another_file_system(
  step, tmp_path, monkeypatch
):
  step(3)
  (step(4) / 'x').unlink()

  def rename(*paths):
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

  monkeypatch.setattr(os, 'rename', rename)
  assert folder.tidy(tmp_path / 'checkpoints', 1000) == 3
  assert (tmp_path / 'damaged' / '4' / seals.NAME).exists()
  assert not (tmp_path / 'checkpoints' / '4').exists()


def test_who_reads_is_told_why_nothing_is_whole(step, tmp_path):
  with checkpoints.Checkpoints(tmp_path, read_only=True) as manager:
    assert manager.empty
  (step(7) / seals.NAME).write_text('{}')
  step(8, sealed=False)
  with checkpoints.Checkpoints(tmp_path, read_only=True) as manager:
    assert not manager.empty and manager.latest is None
    with pytest.raises(ValueError, match='step 7: .*damaged.*; step 8: it has'):
      manager.restore({})


def test_strange_leftovers_are_in_nobody_s_way(step, tmp_path):
  path = step(5)
  (path.parent / '7.removed').write_text('a file')
  (path.parent / '8.orbax-checkpoint-tmp').symlink_to(tmp_path)
  assert folder.tidy(path.parent, 1000) == 5
  assert tmp_path.is_dir()
  (path.parent / '5.removed').mkdir()
  (path.parent / '5.removed' / 'part').write_text('part')
  folder.remove(path)
  assert not list(path.parent.iterdir())
