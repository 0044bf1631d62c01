"""A tokenizer's files, read as a stranger's: nothing in them is trusted."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from kdjax import hub

# The tokenizers library takes room for all ids up to the largest one.
_MOST_IDS = 2**24


@contextlib.contextmanager
def naming(spec: str) -> Iterator[None]:
  """Makes one error of whatever a tokenizer's files do to the libraries."""
  try:
    yield
  except (OSError, ImportError):
    raise
  # What the tokenizers library's Rust panics with isn't an Exception.
  except BaseException as error:
    stops = isinstance(error, KeyboardInterrupt | SystemExit)
    if stops or (isinstance(error, ValueError) and spec in str(error)):
      raise
    raise ValueError(
      f'the files of the tokenizer {spec!r} are damaged: '
      f'{type(error).__name__}: {error}'
    ) from error


def tokenizer(name: str, embedded: Sequence[str]) -> Any:
  """Returns transformers' tokenizer of a directory or a hub id.

  Args:
    name: the directory or the id.
    embedded: names that are neither, for the message.

  Raises:
    FileNotFoundError: nothing of that name exists, or it isn't whole.
    ValueError: it needs code of its own, reads files elsewhere, or would take
      all memory.
  """
  import transformers

  def get(offline: bool) -> Any:
    # Left out, transformers may ask on the terminal whether to run code.
    return transformers.AutoTokenizer.from_pretrained(
      name, trust_remote_code=False, local_files_only=offline
    )

  folder = name if pathlib.Path(name).is_dir() else None
  if folder:
    hub.check_members(pathlib.Path(folder))
    _check_size(pathlib.Path(folder))
  try:
    if folder:
      return get(offline=False)
    return hub.fetch(f'tokenizer {name}', get)
  except OSError as error:
    hub.check_disk(error, folder)
    raise FileNotFoundError(
      f'cannot load the tokenizer {name!r} ({hub.reason(error)}): it is not '
      'whole, or it is neither embedded '
      f'({", ".join(embedded)}) nor a local path, and the Hugging Face hub '
      'does not give it. Name a local path, or use the `:embedded` form of '
      'the config, which needs no network'
    ) from error
  except ValueError as error:
    if 'trust_remote_code' not in str(error):
      raise
    raise ValueError(
      f'the tokenizer {name!r} wants to run code from its repository, which '
      'kdjax refuses: name one in a format that transformers knows'
    ) from error


def _check_size(directory: pathlib.Path) -> None:
  """Raises ValueError where a tokenizer.json's ids are beyond all reason."""
  size = hub.tokenizer_size(directory) or 0
  if size > _MOST_IDS:
    raise ValueError(
      f'{directory}/tokenizer.json gives a token the id {size - 1}: expected '
      f'ids below {_MOST_IDS}'
    )
