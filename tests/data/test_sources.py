"""Sources find, name and identify splits, and cut them."""

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
