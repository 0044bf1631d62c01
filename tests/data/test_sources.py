"""Sources find, name and identify splits, and cut them."""

import errno

import pytest

from kdjax import hub
from kdjax.data import sources
from tests.data.tables import ROWS, write


def test_missing_file_lists_its_neighbours(tmp_path):
  write(tmp_path / 'train.jsonl')
  files = sources.Files(str(tmp_path / '{split}.jsonl'))
  assert len(files.rows('train')) == 2
  with pytest.raises(FileNotFoundError, match=r'test.jsonl.*holds train.jsonl'):
    files.rows('test')
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    sources.Files(str(tmp_path / 'x' / 'y.jsonl')).rows('train')


def test_identity_is_of_the_content(tmp_path):
  files = sources.Files(str(write(tmp_path / 'a.jsonl')))
  copy = sources.Files(str(write(tmp_path / 'b.jsonl')))
  assert files.identity('train') == copy.identity('train')
  write(tmp_path / 'b.jsonl', ROWS[:1])
  assert files.identity('train') != copy.identity('train')


def test_folder_finds_the_format(tmp_path):
  write(tmp_path / 'train.parquet')
  assert len(sources.folder(str(tmp_path), ('train',)).rows('train')) == 2
  with pytest.raises(FileNotFoundError, match='none of test'):
    sources.folder(str(tmp_path), ('test',))


def test_divided_splits_partition_whatever_the_order(tmp_path):
  rows = [{'q': f'question {i}'} for i in range(20)]
  sizes = (('test', 3), ('validation', 5))

  def split(order):
    path = write(tmp_path / 'train.jsonl', order)
    whole = sources.Files(str(path))
    divided = sources.Divided(whole, lambda r: r['q'], sizes)
    return [[r['q'] for r in divided.rows(s)] for s in divided.splits]

  parts = split(rows)
  assert [len(p) for p in parts] == [12, 3, 5]
  assert sorted(sum(parts, [])) == sorted(r['q'] for r in rows)
  assert split(rows[::-1]) == parts


def test_half_a_character_is_left_to_the_task(tmp_path):
  path = tmp_path / 'train.jsonl'
  path.write_text('{"q": "a"}\n{"q": "\\ud800"}\n')
  divided = sources.Divided(
    sources.Files(str(path)), lambda r: r['q'], (('test', 1),)
  )
  rows = [*divided.rows('train'), *divided.rows('test')]
  assert sorted(row['q'] for row in rows) == ['a', '\ud800']


def test_reworked_leaves_other_splits_alone(tmp_path):
  write(tmp_path / 'train.jsonl')
  write(tmp_path / 'test.jsonl')
  whole = sources.folder(str(tmp_path), ('train', 'test'))
  reworked = sources.Reworked(whole, lambda row: [row] * (row['q'] == 'q2'))
  assert reworked.splits == whole.splits
  assert reworked.rows('train') == ROWS[1:]
  assert reworked.rows('test') == ROWS
  assert reworked.identity('test') == whole.identity('test')


def test_unreachable_hub_names_the_way_out(monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: False)
  monkeypatch.setattr(hub, 'WAITS', ())
  with pytest.raises(FileNotFoundError, match='`:embedded`') as error:
    sources.Hub('some-owner/some-data', ('train',)).rows('train')
  assert '\n' not in str(error.value)


@pytest.fixture
def load(monkeypatch):
  """Has loading from the hub raise an error."""
  import datasets

  def rows(error):
    def fail(*unused, **options):
      raise error

    monkeypatch.setattr(hub, 'answers', lambda: True)
    monkeypatch.setattr(datasets, 'load_dataset', fail)
    return sources.Hub('some-owner/some-data', ('train',)).rows('train')

  return rows


def failed(cause):
  """Returns what datasets raises of a cause."""
  import datasets

  error = datasets.exceptions.DatasetGenerationError('An error occurred')
  error.__cause__ = cause
  return error


def test_a_damaged_file_of_the_hub_is_named_with_its_cause(load):
  with pytest.raises(FileNotFoundError) as error:
    load(failed(ValueError('JSON parse error')))
  assert "'some-owner/some-data'" in str(error.value)
  assert '(ValueError: JSON parse error)' in str(error.value)
  with pytest.raises(FileNotFoundError, match='RuntimeError: no scripts'):
    load(RuntimeError('no scripts'))


def test_a_full_disk_is_no_fault_of_the_hubs(load):
  import datasets

  full = OSError(errno.ENOSPC, 'No space left on device')
  for error in (full, failed(full), OSError('Not enough disk space. Needed')):
    with pytest.raises(OSError) as raised:
      load(error)
    assert raised.value.errno == errno.ENOSPC
    folder = str(datasets.config.HF_DATASETS_CACHE)
    assert raised.value.filename == folder and folder in str(raised.value)
