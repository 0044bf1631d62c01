"""Files in every format give the same rows; bad rows say what is wrong."""

import csv
import json

import pytest

from kdjax.data import reading
from tests.data.tables import ROWS, write

ENDINGS = ['jsonl', 'jsonl.gz', 'jsonl.xz', 'csv', 'parquet']


@pytest.mark.parametrize('ending', ENDINGS)
def test_formats_agree(ending, tmp_path):
  rows = reading.read(write(tmp_path / f'rows.{ending}'))
  assert [dict(row) for row in rows] == ROWS
  assert dict(rows[1]) == dict(rows[-1]) == ROWS[1]
  assert all(row.fault is None and row.place for row in rows)


def told(path, content):
  """Returns where rows stand, with the reason where they are bad."""
  path.write_bytes(content)
  return [(r.place, r.fault and r.fault.reason) for r in reading.read(path)]


def test_lines(tmp_path):
  content = (
    b'\xef\xbb\xbf{"q": 1}\r\n\n{"q": \n[1]\n{"q": "\xff"}\n{"q": "\0"}\n'
    + b'[' * 100_000
    + b'\n'
    + b'9' * 5000
    + b'\n{"q": 2}'
  )
  assert told(tmp_path / 'rows.jsonl', content) == [
    ('line 1', None),
    ('line 3', 'not JSON'),
    ('line 4', 'not an object, {...}'),
    ('line 5', 'bad UTF-8'),
    ('line 6', 'a NUL byte'),
    ('line 7', 'not JSON'),
    ('line 8', 'not JSON'),
    ('line 9', None),
  ]
  content = b'a\r\n \n\xff\nb'
  assert told(tmp_path / 'rows.txt', content) == [
    ('line 1', None),
    ('line 3', 'bad UTF-8'),
    ('line 4', None),
  ]


def test_records(tmp_path):
  content = (
    b'q,a\n1,2\n"x"y,2\n\n"two\nlines",3\n\xff,4\n5\n6,7,8\n"a\nb",1,2\n9,10'
  )
  assert told(tmp_path / 'rows.csv', content) == [
    ('line 2', None),
    ('line 3', 'not csv'),
    ('line 5', None),
    ('line 7', 'bad UTF-8'),
    ('line 8', 'another number of fields than columns'),
    ('line 9', 'another number of fields than columns'),
    ('lines 10 to 11', 'another number of fields than columns'),
    ('line 12', None),
  ]
  assert told(tmp_path / 'rows.csv', b'') == []
  long = b'q\n' + b'x' * 1_000_000
  assert told(tmp_path / 'rows.csv', long) == [('line 2', None)]
  assert csv.field_size_limit() < 1_000_000


def test_bad_text_in_a_table(tmp_path):
  import pyarrow
  import pyarrow.parquet

  values = [b'a', b'\xff', 'ä'.encode()] + [b'b'] * 600
  array = pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())
  path = tmp_path / 'rows.parquet'
  pyarrow.parquet.write_table(pyarrow.table({'q': array}), path)
  rows = list(reading.read(path))
  assert len(rows) == 603
  assert [row.place for row in rows if row.fault] == ['row 1']
  assert rows[1].fault.reason == 'bad UTF-8' and rows[2] == {'q': 'ä'}


@pytest.mark.parametrize(
  'kind, bad, far',
  [
    ('timestamp', 2**62, ['us']),
    ('date32', 2**30, []),
    ('time64', 2**62, ['us']),
    ('duration', 2**62, ['s']),
  ],
)
def test_a_value_out_of_range_in_a_table(kind, bad, far, tmp_path):
  import pyarrow
  import pyarrow.parquet

  # Python's own times end with the year 9999.
  when = pyarrow.array([0, bad] + [0] * 600, getattr(pyarrow, kind)(*far))
  path = tmp_path / 'rows.parquet'
  table = pyarrow.table({'q': ['a'] * 602, 'when': when})
  pyarrow.parquet.write_table(table, path)
  rows = list(reading.read(path))
  assert [row.place for row in rows if row.fault] == ['row 1']
  assert rows[1].fault.reason == "an unreadable value in the column 'when'"
  assert rows[1].fault.detail.startswith(f'{when.type}: ')
  assert rows[2]['q'] == 'a' and reading.read(path)[1].fault


def test_an_unknown_time_zone(tmp_path):
  import pyarrow
  import pyarrow.parquet

  when = pyarrow.array([0, None], pyarrow.timestamp('us', tz='Mars/Phobos'))
  path = tmp_path / 'rows.parquet'
  table = pyarrow.table({'q': ['a', 'b'], 'when': when})
  pyarrow.parquet.write_table(table, path)
  bad, good = reading.read(path)
  assert bad.fault.reason == "an unreadable value in the column 'when'"
  assert 'Mars/Phobos' in bad.fault.detail
  assert good == {'q': 'b', 'when': None} and not good.fault


def test_numbers_of_any_size(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text(json.dumps({'q': 10**400}))
  assert reading.read(path)[0] == {'q': 10**400}


@pytest.mark.parametrize('ending', ['jsonl.gz', 'jsonl.xz', 'parquet'])
def test_what_is_cut_short_is_no_file(ending, tmp_path):
  path = write(tmp_path / f'rows.{ending}')
  whole = path.read_bytes()
  for size in (5, len(whole) // 2, len(whole) - 5):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'rows.*\d bytes.*again'):
      reading.read(path)


@pytest.mark.parametrize(
  'content, tells',
  [
    (b'q,q\n1,2', r"several columns are named \['q'\]"),
    (b'q,a\n"1,2\n3,4\n', 'line 2: a quote opens that nothing closes'),
    ('q,a'.encode('utf-16'), 'is UTF-16.*iconv'),
  ],
)
def test_a_file_that_is_damaged_as_a_whole(content, tells, tmp_path):
  path = tmp_path / 'rows.csv'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=tells):
    reading.read(path)


def test_unknown_ending(tmp_path):
  path = tmp_path / 'rows.tsv'
  path.write_text('x')
  with pytest.raises(ValueError, match='.parquet, .jsonl, .csv or .txt'):
    reading.read(path)
