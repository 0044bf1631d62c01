"""Where rows come from: embedded assets, local files, the Hugging Face hub.

A source says which splits it has, gives a split as rows (dicts) and identifies
the content, so that what is made of it can be cached.
"""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from kdjax import hub
from kdjax.data import vocabularies

TABLES = ('.jsonl', '.csv', '.parquet')
_OPENERS = {'.gz': gzip.open, '.xz': lzma.open}


class Source(Protocol):
  """Rows by split."""

  splits: tuple[str, ...]

  def rows(self, split: str) -> Sequence[dict[str, Any]]:
    """Returns the rows of a split."""

  def identity(self, split: str) -> str:
    """Returns what changes whenever the content of the split does."""


@dataclasses.dataclass(frozen=True)
class Files:
  """Local files, one a split.

  Attributes:
    path: a file; with '{split}' in it, one file a split. Without, the file
      serves whichever split is asked for.
    splits: the splits that exist, where that is known.
  """

  path: str
  splits: tuple[str, ...] = ()

  def file(self, split: str) -> pathlib.Path:
    path = pathlib.Path(self.path.replace('{split}', split)).expanduser()
    if not path.is_file():
      raise FileNotFoundError(f'no data file {path}' + _neighbours(path))
    return path

  def rows(self, split: str) -> Sequence[dict[str, Any]]:
    return read_rows(self.file(split))

  def identity(self, split: str) -> str:
    return hashlib.sha256(self.file(split).read_bytes()).hexdigest()


def embedded(name: str) -> Files:
  """The splits of an asset that ships with kdjax."""
  path = vocabularies.ASSETS / name / '{split}.jsonl.xz'
  return Files(str(path), ('train', 'validation', 'test'))


def folder(directory: str, splits: tuple[str, ...]) -> Files:
  """A local copy of a hub data set: `<split>.parquet`, `.jsonl` or `.csv`.

  Raises:
    FileNotFoundError: the folder holds no such file.
  """
  root = pathlib.Path(directory).expanduser()
  for suffix in (f + c for f in TABLES for c in ('', '.gz', '.xz')):
    if any((root / f'{split}{suffix}').is_file() for split in splits):
      return Files(str(root / ('{split}' + suffix)), splits)
  raise FileNotFoundError(
    f'{directory} holds none of {", ".join(splits)} as .parquet, .jsonl or '
    f'.csv' + _neighbours(root / 'x')
  )


def _neighbours(path: pathlib.Path) -> str:
  if not path.parent.is_dir():
    return f': there is no folder {path.parent}'
  names = sorted(p.name for p in path.parent.iterdir())[:8]
  return f'. {path.parent} holds {", ".join(names) or "nothing"}'


@dataclasses.dataclass(frozen=True)
class Hub:
  """A data set of the Hugging Face hub.

  Attributes:
    repository: its id.
    splits: the splits that exist.
    config: its configuration, where it has several.
    revision: branch, tag or commit. 'refs/convert/parquet' is the hub's own
      conversion of data sets whose repository holds a loading script, which
      the datasets library does not run.
  """

  repository: str
  splits: tuple[str, ...]
  config: str | None = None
  revision: str | None = None

  def rows(self, split: str) -> Sequence[dict[str, Any]]:
    import datasets

    if not hub.answers():
      datasets.config.HF_HUB_OFFLINE = True
    try:
      return datasets.load_dataset(
        self.repository, self.config, split=split, revision=self.revision
      )
    except (OSError, ValueError) as error:
      raise FileNotFoundError(
        f'cannot load {self.repository!r} from the Hugging Face hub '
        f'({type(error).__name__}: {_first_line(error)}). Use the '
        '`:embedded` form of the config, which needs no network, or name a '
        "folder that holds the splits as parquet with task args' `data_dir`"
      ) from error

  def identity(self, split: str) -> str:
    return f'{self.repository} {self.config} {self.revision} {split}'


def _first_line(error: Exception) -> str:
  return str(error).strip().split('\n')[0]


def read_rows(path: pathlib.Path) -> Sequence[dict[str, Any]]:
  """Reads jsonl, csv, txt (each may be .gz or .xz) or parquet, by its ending.

  Of a .txt file, every line that isn't blank is a row {'text': line}.

  Raises:
    ValueError: another ending, or a line that does not parse.
  """
  compression = path.suffix if path.suffix in _OPENERS else ''
  kind = pathlib.Path(path.name.removesuffix(compression)).suffix
  if kind == '.parquet' and not compression:
    import datasets
    import pyarrow.parquet

    return datasets.Dataset(pyarrow.parquet.read_table(path))
  if kind not in ('.jsonl', '.csv', '.txt'):
    raise ValueError(
      f'{path}: expected a file that ends in .parquet, .jsonl, .csv or .txt '
      '(the last three also with .gz or .xz)'
    )
  with _OPENERS.get(compression, open)(path, 'rb') as file:
    text = file.read().decode('utf-8-sig')
  if kind == '.csv':
    return list(csv.DictReader(io.StringIO(text, newline='')))
  if kind == '.txt':
    lines = (line.removesuffix('\r') for line in text.split('\n'))
    return [{'text': line} for line in lines if line.strip()]
  return _parse_lines(path, text)


def _parse_lines(path: pathlib.Path, text: str) -> list[dict[str, Any]]:
  rows = []
  # Not `splitlines`: JSON strings may hold U+2028 as it is.
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(f'{path}, line {number}: not JSON ({error})') from error
    if not isinstance(row, dict):
      raise ValueError(f'{path}, line {number}: expected an object, {{...}}')
    rows.append(row)
  return rows


@dataclasses.dataclass(frozen=True)
class Divided:
  """Held-out splits cut from a source that has 'train' alone.

  Rows are ordered by a hash of their key, so that a split doesn't change with
  the order of the source, and rows with one key fall together.

  Attributes:
    source: the source.
    key: a row to the text that is hashed.
    sizes: names and numbers of rows of the splits, in the order they are cut;
      what remains is 'train'.
  """

  source: Source
  key: Callable[[dict[str, Any]], str]
  sizes: tuple[tuple[str, int], ...]

  @property
  def splits(self) -> tuple[str, ...]:
    return ('train', *(name for name, _ in self.sizes))

  def rows(self, split: str) -> Sequence[dict[str, Any]]:
    rows = sorted(
      self.source.rows('train'),
      key=lambda r: hashlib.sha256(self.key(r).encode()).hexdigest(),
    )
    for name, size in self.sizes:
      if name == split:
        return rows[:size]
      rows = rows[size:]
    return rows

  def identity(self, split: str) -> str:
    return f'{self.source.identity("train")} {split} {self.sizes}'


@dataclasses.dataclass(frozen=True)
class Reworked:
  """A source whose 'train' rows go through a function; other splits stay.

  Attributes:
    source: the source.
    rework: all rows of 'train' to those that take their place. It belongs to
      the task: its code and arguments identify it.
  """

  source: Source
  rework: Callable[[Iterable[dict[str, Any]]], Sequence[dict[str, Any]]]

  @property
  def splits(self) -> tuple[str, ...]:
    return self.source.splits

  def rows(self, split: str) -> Sequence[dict[str, Any]]:
    rows = self.source.rows(split)
    return self.rework(rows) if split == 'train' else rows

  def identity(self, split: str) -> str:
    return self.source.identity(split)
