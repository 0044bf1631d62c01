"""What a cache of responses says it is, and whether that is what is wanted.

A manifest's key is all that decides over the responses: the model, the
tokenizer, what was asked, and how it was sampled. Its digest stands in the
record of every shard. `about` is for people, and for messages.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import kdjax
from kdjax import checksums
from kdjax.data.shards import PATTERN, Shard

NAME = 'manifest.json'
# Of the files: what says another one isn't read.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a directory's responses are.

  Attributes:
    directory: of the cache.
    key: what decides over them.
    about: what doesn't, or is in the key as a digest.
  """

  directory: pathlib.Path
  key: Mapping[str, Any]
  about: Mapping[str, Any]

  @classmethod
  def read(cls, directory: pathlib.Path) -> 'Manifest':
    """Reads a directory's manifest.

    Raises:
      FileNotFoundError: it has none.
      ValueError: it is damaged, or of another version.
    """
    path = directory / NAME
    if not path.exists():
      raise FileNotFoundError(
        f'no teacher responses in {directory} (no {NAME}): write them with '
        '--mode=generate'
      )
    try:
      found = checksums.read_record(path)
    except ValueError as error:
      raise ValueError(
        f'{error}. If another version of kdjax wrote it, generate into another '
        'directory. Else delete it and run --mode=generate again: shards that '
        'were made with the same settings stay'
      ) from None
    if found.get('format') != FORMAT:
      raise ValueError(
        f'{path} has the format {found.get("format")!r:.40}, but this kdjax '
        f'reads {FORMAT}: generate into another directory'
      )
    key, about = found.get('key'), found.get('about')
    if not _sound(key) or not isinstance(about, dict):
      raise ValueError(f'{path} lacks what a manifest must say: delete it')
    return cls(directory, key, about)

  def write(self) -> None:
    """Writes the manifest.

    Raises:
      OSError: naming the file.
    """
    content = {
      'format': FORMAT,
      'kdjax': kdjax.__version__,
      'key': self.key,
      'about': self.about,
    }
    checksums.write_record(self.directory / NAME, content)

  @property
  def role(self) -> str:
    """Who responded: 'teacher' or 'student'."""
    return self.key['model']['role']

  @property
  def k(self) -> int:
    """Log-probabilities a token; 0 for none."""
    return self.key['sampling']['top_logprobs']

  def shards(self) -> Iterator[Shard]:
    """Yields all shards, whether they are there or not."""
    identity, count = checksums.digest(self.key), self.key['shards']
    for number in range(count):
      yield Shard(
        self.directory,
        number,
        count,
        identity,
        self.key['vocabulary_size'],
        self.k,
      )

  def present(self) -> list[Shard]:
    """Returns all shards, which must be there.

    Raises:
      FileNotFoundError: some are missing.
      ValueError: there are others.
    """
    names = set(os.listdir(self.directory))
    found, count = [], self.key['shards']
    for shard in self.shards():
      if shard.record.name not in names:
        there = sum(name.endswith(f'-of-{count:05d}.json') for name in names)
        raise FileNotFoundError(
          f'{count - there} of {count} shards are missing in '
          f'{self.directory}, {shard.record.name} among them: run '
          '--mode=generate again, it goes on where it stopped'
        )
      found.append(shard)
    self.check_strangers(found)
    return found

  def check_strangers(self, shards: Sequence[Shard]) -> None:
    """Raises ValueError if there are files of shards beside all these."""
    own = {path.name for shard in shards for path in shard.files}
    found = {path.name for path in self.directory.glob(PATTERN)}
    strange = sorted(
      name for name in found - own if not name.endswith('.partial')
    )
    if strange:
      raise ValueError(
        f'{self.directory} holds {len(strange)} files that its {NAME} does not '
        f'know, {strange[0]} among them: move them out of it'
      )

  def check_same(self, here: 'Manifest') -> None:
    """Raises ValueError unless this is a manifest of the same responses."""
    key = differences(self.key, here.key, every=True)
    if not key:
      return
    about = differences(self.about, here.about)
    more = f'; beside these, in {", ".join(about)}' if about else ''
    raise ValueError(
      f'{self.directory} holds responses of another run: they differ in '
      f'{", ".join(key)}{more}. Choose another directory, or remove that one'
    )


def differences(
  there: Any, here: Mapping[str, Any], every: bool = False, name: str = ''
) -> list[str]:
  """Returns what of `here` is otherwise in `there`, field by field.

  >>> differences({'a': {'b': 1}, 'c': 2}, {'a': {'b': 3}})
  ['a.b (there 1, here 3)']

  Args:
    there: as JSON gave it.
    here: what JSON can hold.
    every: also what `there` has and `here` hasn't.
    name: of both, with its dot.
  """
  here = json.loads(checksums.canonical(here))
  there = there if isinstance(there, Mapping) else {}
  found = []
  for key in {**(there if every else {}), **here}:
    old, value = there.get(key), here.get(key)
    if isinstance(old, Mapping) and isinstance(value, Mapping):
      found += differences(old, value, every, f'{name}{key}.')
    elif old != value:
      found.append(f'{name}{key} (there {_short(old)}, here {_short(value)})')
  return found


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:13]}...{text[-5:]}'


def _sound(key: Any) -> bool:
  """Whether a key has what is read of it, within its bounds."""

  def count(value: Any, low: int, high: float) -> bool:
    return type(value) is int and low <= value <= high

  try:
    size = key['vocabulary_size']
    texts = [key[name] for name in ('tokenizer', 'task', 'split')]
    texts += [key['ids'], key['prompts'], key['model']['role']]
    return (
      all(isinstance(text, str) for text in texts)
      and count(size, 1, 2**31 - 1)
      and count(key['examples'], 1, 2**62)
      and count(key['shards'], 1, key['examples'])
      and count(key['sampling']['top_logprobs'], 0, size)
    )
  except (KeyError, TypeError):
    return False
