"""Where rows come from: embedded assets, local files, the Hugging Face hub.

A source says which splits it has, gives a split as rows (dicts) and identifies
the content, so that what is made of it can be cached.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from kdjax import files, hub
from kdjax.data import reading, vocabularies
from kdjax.data.faults import BadExample, read_by
from kdjax.data.reading import Row


class Source(Protocol):
  """Rows by split."""

  splits: tuple[str, ...]

  def name(self, split: str) -> str:
    """Returns what people know the split by: a file, a hub id."""

  def rows(self, split: str) -> Sequence[Row]:
    """Returns the rows of a split; one that cannot be read has a `fault`."""

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
    path = files.expanded(self.path.replace('{split}', split))
    if not path.is_file():
      raise FileNotFoundError(f'no data file {path}' + _neighbours(path))
    return path

  def name(self, split: str) -> str:
    return str(self.file(split))

  def rows(self, split: str) -> Sequence[Row]:
    return reading.read(self.file(split))

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
  root = files.expanded(directory)
  for suffix in (f + c for f in reading.TABLES for c in ('', '.gz', '.xz')):
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

  def name(self, split: str) -> str:
    return f'{self.repository} ({split})'

  def rows(self, split: str) -> Sequence[Row]:
    import datasets

    asked = datasets.config.HF_HUB_OFFLINE

    def load(offline: bool) -> Any:
      datasets.config.HF_HUB_OFFLINE = asked or offline
      return datasets.load_dataset(
        self.repository, self.config, split=split, revision=self.revision
      )

    try:
      found = hub.fetch(self.repository, load)
    except Exception as error:  # The library raises many kinds.
      hub.check_disk(error, datasets.config.HF_DATASETS_CACHE)
      cause = error
      if isinstance(error, datasets.exceptions.DatasetGenerationError):
        cause = error.__cause__ or error  # It says itself only that it failed.
      raise FileNotFoundError(
        f'cannot load {self.repository!r} from the Hugging Face hub '
        f'({hub.reason(cause)}). Use the '
        '`:embedded` form of the config, which needs no network, or name a '
        "folder that holds the splits as parquet with task args' `data_dir`"
      ) from error
    return reading.Table(found.with_format('arrow')[:])

  def identity(self, split: str) -> str:
    return f'{self.repository} {self.config} {self.revision} {split}'


@dataclasses.dataclass(frozen=True)
class Divided:
  """Held-out splits cut from a source that has 'train' alone.

  Rows are ordered by a hash of their key, so that a split doesn't change with
  the order of the source, and rows with one key fall together. Rows without a
  key are the last of 'train'.

  Attributes:
    source: the source.
    key: a row to the text that is hashed.
    sizes: names and numbers of rows of the splits, in the order they are cut;
      what remains is 'train'.
  """

  source: Source
  key: Callable[[Row], str]
  sizes: tuple[tuple[str, int], ...]

  @property
  def splits(self) -> tuple[str, ...]:
    return ('train', *(name for name, _ in self.sizes))

  def name(self, split: str) -> str:
    return f'{self.source.name("train")}, of which {split}'

  def rows(self, split: str) -> Sequence[Row]:
    keyed, faulty = [], []
    for row in self.source.rows('train'):
      try:
        # Half a character is for the task to complain of.
        key = read_by(self.key, row).encode('utf-8', 'surrogatepass')
        keyed.append((hashlib.sha256(key).hexdigest(), row))
      except BadExample as fault:
        faulty.append(Row(place=row.place, fault=fault))
    rows = [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
    for name, size in self.sizes:
      if name == split:
        return rows[:size]
      rows = rows[size:]
    return rows + faulty

  def identity(self, split: str) -> str:
    return f'{self.source.identity("train")} {split} {self.sizes}'


@dataclasses.dataclass(frozen=True)
class Reworked:
  """A source whose 'train' rows go through a function; other splits stay.

  Attributes:
    source: the source.
    rework: a row of 'train' to those that take its place. It belongs to the
      task: its code and arguments identify it.
  """

  source: Source
  rework: Callable[[Row], Iterable[dict[str, Any]]]

  @property
  def splits(self) -> tuple[str, ...]:
    return self.source.splits

  def name(self, split: str) -> str:
    return self.source.name(split)

  def rows(self, split: str) -> Sequence[Row]:
    rows = self.source.rows(split)
    if split != 'train':
      return rows
    reworked = []
    for row in rows:
      try:
        made = read_by(lambda row: [*self.rework(row)], row)
        reworked += [Row(each, row.place) for each in made]
      except BadExample as fault:
        reworked.append(Row(place=row.place, fault=fault))
    return reworked

  def identity(self, split: str) -> str:
    return self.source.identity(split)
