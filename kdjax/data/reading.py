"""Rows from files: each with where it stands, and why it cannot be read."""

import csv
import gzip
import io
import json
import lzma
import pathlib
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from kdjax.data.faults import BadExample

TABLES = ('.jsonl', '.csv', '.parquet')
_OPENERS = {'.gz': gzip.open, '.xz': lzma.open}
_CHUNK = 512

# What Arrow raises of values that Python has none for: bytes that aren't UTF-8,
# times out of range, unknown time zones and types.
_UNREADABLE = (
  ValueError,
  TypeError,
  LookupError,
  OverflowError,
  NotImplementedError,
)


class Row(dict):
  """The values of a row by column.

  Attributes:
    place: where it stands, for people: 'line 3'.
    fault: why it cannot be read; then it has no values. Else None.
  """

  def __init__(
    self,
    values: Mapping[str, Any] = {},
    place: str = '',
    fault: BadExample | None = None,
  ):
    super().__init__(values)
    self.place = place
    self.fault = fault


class Table(Sequence):
  """Rows of an Arrow table, made when they are asked for."""

  def __init__(self, table: Any):
    self._table = table

  def __len__(self) -> int:
    return self._table.num_rows

  def __getitem__(self, index: int) -> Row:
    index = range(len(self))[index]
    return self._row(index)

  def __iter__(self) -> Iterator[Row]:
    for start in range(0, len(self), _CHUNK):
      try:
        rows = self._table.slice(start, _CHUNK).to_pylist()
      except _UNREADABLE:
        stop = min(start + _CHUNK, len(self))
        yield from (self._row(i) for i in range(start, stop))
      else:
        yield from (Row(r, f'row {i}') for i, r in enumerate(rows, start))

  def _row(self, index: int) -> Row:
    place, row = f'row {index}', self._table.slice(index, 1)
    try:
      return Row(row.to_pylist()[0], place)
    except _UNREADABLE as error:
      return Row(place=place, fault=_unreadable(row, error))


def _unreadable(row: Any, error: Exception) -> BadExample:
  """Returns why a table of one row cannot be read."""
  if isinstance(error, UnicodeDecodeError):
    return _bad_utf8(error)
  for field, column in zip(row.schema, row.columns):
    try:
      column.to_pylist()
    except _UNREADABLE as found:
      reason = f'an unreadable value in the column {field.name!r}'
      return BadExample(reason, f'{field.type}: {found}')
  return BadExample('not a readable row', str(error))


def read(path: pathlib.Path) -> Sequence[Row]:
  """Reads jsonl, csv, txt (each may be .gz or .xz) or parquet, by its ending.

  Of a .txt file, every line that isn't blank is a row {'text': line}.

  Raises:
    ValueError: another ending, or the file as a whole is damaged. A row that
      is has a `fault`.
  """
  compression = path.suffix if path.suffix in _OPENERS else ''
  kind = pathlib.Path(path.name.removesuffix(compression)).suffix
  if kind == '.parquet' and not compression:
    return _parquet(path)
  if kind not in _READERS:
    raise ValueError(
      f'{path}: expected a file that ends in .parquet, .jsonl, .csv or .txt '
      '(the last three also with .gz or .xz)'
    )
  try:
    with _OPENERS.get(compression, open)(path, 'rb') as file:
      return list(_READERS[kind](path, _past_mark(path, file)))
  except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) cannot be decompressed: {error}. '
      'It is not whole, or not what its ending says: fetch or write it again'
    ) from error


def _past_mark(path: pathlib.Path, file: IO[bytes]) -> IO[bytes]:
  """Skips the mark of UTF-8, and refuses that of UTF-16."""
  start = file.read(3)
  if start[:2] in (b'\xff\xfe', b'\xfe\xff'):
    raise ValueError(
      f'{path} is UTF-16; kdjax reads UTF-8: convert it, such as by '
      f'iconv -f UTF-16 -t UTF-8'
    )
  file.seek(3 if start == b'\xef\xbb\xbf' else 0)
  return file


def _parquet(path: pathlib.Path) -> Table:
  import pyarrow
  import pyarrow.parquet

  try:
    return Table(pyarrow.parquet.read_table(path))
  except (pyarrow.ArrowException, OSError) as error:
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is not a readable parquet file: '
      f'{str(error).strip().splitlines()[0]}. Fetch or write it again'
    ) from error


def _bad_utf8(error: UnicodeDecodeError) -> BadExample:
  byte = error.object[error.start]
  return BadExample('bad UTF-8', f'byte 0x{byte:02x} at {error.start}')


def _lines(file: IO[bytes]) -> Iterator[tuple[str, str | BadExample]]:
  """Yields where every line that isn't blank stands, and its text."""
  # Not `splitlines`: JSON strings may hold U+2028 as it is.
  for number, line in enumerate(file, 1):
    if not line.strip():
      continue
    try:
      text = line.decode('utf-8').removesuffix('\n').removesuffix('\r')
    except UnicodeDecodeError as error:
      text = _bad_utf8(error)
    yield f'line {number}', text


def _txt(path: pathlib.Path, file: IO[bytes]) -> Iterator[Row]:
  del path
  for place, line in _lines(file):
    if isinstance(line, BadExample):
      yield Row(place=place, fault=line)
    elif line.strip():
      yield Row({'text': line}, place)


def _jsonl(path: pathlib.Path, file: IO[bytes]) -> Iterator[Row]:
  del path
  for place, line in _lines(file):
    try:
      yield Row(_object(line), place)
    except BadExample as fault:
      yield Row(place=place, fault=fault)


def _object(line: str | BadExample) -> dict[str, Any]:
  if isinstance(line, BadExample):
    raise line
  if '\0' in line:
    raise BadExample('a NUL byte')
  try:
    found = json.loads(line)
  # What is nested too deeply, and numbers of thousands of digits.
  except (ValueError, RecursionError) as error:
    raise BadExample('not JSON', str(error)) from None
  if not isinstance(found, dict):
    raise BadExample('not an object, {...}')
  return found


def _csv(path: pathlib.Path, file: IO[bytes]) -> Iterator[Row]:
  # Bytes that aren't UTF-8 come as surrogates, which then tell their row.
  text = io.TextIOWrapper(file, 'utf-8', 'surrogateescape', newline='')
  records = csv.reader(text, strict=True)
  # A field may be as long as the file; the limit guards against open quotes.
  limit = csv.field_size_limit(sys.maxsize)
  try:
    columns = _header(path, records)
    while True:
      start = records.line_num + 1
      try:
        fields = next(records)
        if fields:
          yield Row(_record(columns, fields), f'line {start}')
      except StopIteration:
        return
      except (csv.Error, BadExample) as error:
        if 'unexpected end' in str(error):
          raise ValueError(
            f'{path}, line {start}: a quote opens that nothing closes'
          ) from None
        yield Row(place=_span(start, records.line_num), fault=_csv_fault(error))
  finally:
    csv.field_size_limit(limit)


def _span(first: int, last: int) -> str:
  return f'line {first}' if first == last else f'lines {first} to {last}'


def _csv_fault(error: csv.Error | BadExample) -> BadExample:
  if isinstance(error, BadExample):
    return error
  return BadExample('not csv', str(error))


def _header(path: pathlib.Path, records: Iterator[list[str]]) -> list[str]:
  try:
    columns = next(records, [])
  except csv.Error as error:
    raise ValueError(f'{path}, line 1: not csv ({error})') from error
  twice = sorted({c for c in columns if columns.count(c) > 1})
  if twice:
    raise ValueError(f'{path}, line 1: several columns are named {twice}')
  return columns


def _record(columns: list[str], fields: list[str]) -> dict[str, str]:
  if len(fields) != len(columns):
    raise BadExample(
      'another number of fields than columns',
      f'{len(fields)} fields for {len(columns)} columns',
    )
  for value in fields:
    try:
      value.isascii() or value.encode('utf-8')
    except UnicodeEncodeError as error:
      byte = ord(value[error.start]) - 0xDC00
      raise BadExample('bad UTF-8', f'byte 0x{byte:02x}') from None
  return dict(zip(columns, fields))


_READERS = {'.jsonl': _jsonl, '.csv': _csv, '.txt': _txt}
