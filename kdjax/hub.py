"""Where models are: shipped with kdjax, in a directory, or on the hub."""

import errno
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from kdjax import files

logger = logging.getLogger(__name__)

EMBEDDED = pathlib.Path(__file__).parent / 'models' / 'assets'
_PREFIX = 'kdjax:'
_WAY_OUT = (
  'Give the directory of a downloaded model, or use a config that needs no '
  'hub, such as configs/gkd_xsum.py:embedded.'
)

# Tokenizers have tens of MB, and what is parsed takes some times as much.
_LARGEST_JSON = 2**28

# Seconds between tries. A blip is over by then; an outage of an hour is not, so
# nobody waits longer than this for the message that names it.
WAITS = (2.0, 8.0)


def answers() -> bool:
  """Whether the Hugging Face hub can be reached.

  Its clients retry for most of a minute where there is no network, and then
  fail; asked first, they read their local cache at once.
  """
  import huggingface_hub

  try:
    session = huggingface_hub.get_session()
    session.head(huggingface_hub.constants.ENDPOINT, timeout=5)
  except Exception:  # Offline mode, no network, no name service, a proxy.
    return False
  return True


def fetch(name: str, get: Callable[[bool], Any], patient: bool = True) -> Any:
  """Returns get(offline), tried again after `WAITS` while the hub is down.

  Args:
    name: what is fetched, for the log.
    get: fetches it; told True, from the hub's local cache alone.
    patient: False to try once.

  Raises:
    Exception: what `get` raised at last, or at once where another try would
      end alike: no such repository, no permission, offline mode.
  """
  for wait in WAITS if patient else ():
    offline = not answers()
    try:
      return get(offline)
    except Exception as error:
      if not _temporary(error, offline):
        raise
      logger.warning(
        'no %s from the Hugging Face hub (%s); trying again in %g s',
        name,
        'it does not answer' if offline else reason(error),
        wait,
      )
    time.sleep(wait)
  return get(offline=not answers())


def reason(error: BaseException) -> str:
  """Returns what went wrong at the hub, in a line."""
  cause = next(_classified(error), error)
  first = (str(cause).strip().splitlines() or [''])[0]
  return f'{type(cause).__name__}: {first}' if first else type(cause).__name__


def _temporary(error: BaseException, offline: bool) -> bool:
  """Whether a later try may end otherwise."""
  import huggingface_hub

  if offline:
    return not huggingface_hub.constants.HF_HUB_OFFLINE
  cause = next(_classified(error), None)
  status = _status(cause)
  if status is None:
    return cause is not None
  return status in (408, 429) or status >= 500


def _classified(error: BaseException | None) -> Iterator[BaseException]:
  """Yields those of an error and its causes that tell what the hub did."""
  return (each for each in _causes(error) if _of_hub(each))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  """Yields an error and its causes, the first cause last."""
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__


def _of_hub(error: BaseException) -> bool:
  # By name: the client's library for HTTP has changed, and may again.
  kinds = {kind.__name__ for kind in type(error).__mro__}
  return _status(error) is not None or bool(kinds & _CONNECTION)


_CONNECTION = {'ConnectionError', 'Timeout', 'TimeoutError', 'TransportError'}


def check_disk(
  error: BaseException, folder: str | os.PathLike | None = None
) -> None:
  """Raises what the disk failed by, where an error of the hub's stems from it.

  Its libraries wrap that in errors of their own.

  Args:
    error: what a library raised.
    folder: where it keeps what it fetches, the hub's cache by default. It is
      named where the disk's own error names no file.

  Raises:
    OSError: with an `errno` of `files.DISK`, naming the file or the folder.
  """
  import huggingface_hub

  folder = folder or huggingface_hub.constants.HF_HUB_CACHE
  for each in _causes(error):
    # A connection may be denied, too.
    if _of_hub(each):
      return
    number = getattr(each, 'errno', None)
    if number is None and any(words in str(each) for words in _FULL):
      number = errno.ENOSPC
    if number in files.DISK:
      name = getattr(each, 'filename', None) or str(folder)
      raise OSError(number, os.strerror(number), name) from error


# What is said of a full disk without an `errno`: by datasets, which reckons the
# room beforehand, and by libraries in Rust.
_FULL = ('Not enough disk space', f'(os error {errno.ENOSPC})')


def _status(error: BaseException | None) -> int | None:
  """Returns the status of the answer that an error is about."""
  response = getattr(error, 'response', None)
  return getattr(response, 'status_code', None)


def locate(
  path_or_id: str, weights: bool = True, patient: bool = True
) -> pathlib.Path:
  """Returns a model's directory, downloading a hub id's files if need be.

  Args:
    path_or_id: a directory, a hub id, or `kdjax:NAME` for a shipped model.
    weights: False to download no more than the config and the tokenizer.
    patient: see `fetch`.

  Raises:
    FileNotFoundError: if there is no such model, or the hub can't be reached.
    OSError: the disk is full, or can't be written; names the file.
    ImportError: for a hub id without the hub's client.
  """
  return local(path_or_id) or _download(path_or_id, weights, patient)


def local(path_or_id: str) -> pathlib.Path | None:
  """Returns a model's directory on this machine, or None for a hub id.

  Raises:
    FileNotFoundError: it can be no hub id, and there is no such directory.
  """
  if path_or_id.startswith(_PREFIX):
    return _embedded(path_or_id.removeprefix(_PREFIX))
  path = files.expanded(path_or_id)
  if path.is_dir():
    return path
  if path_or_id.startswith(('/', '.', '~')) or path_or_id.count('/') > 1:
    raise FileNotFoundError(f'no model directory at {path_or_id}. {_WAY_OUT}')
  return None


def _embedded(name: str) -> pathlib.Path:
  folder = EMBEDDED / name
  if not folder.is_dir():
    names = sorted(f'{_PREFIX}{p.name}' for p in EMBEDDED.glob('*'))
    raise FileNotFoundError(
      f'kdjax ships no model {_PREFIX}{name}; it ships {names}'
    )
  return folder


def _download(name: str, weights: bool, patient: bool) -> pathlib.Path:
  try:
    import huggingface_hub
  except ImportError:
    raise ImportError(
      f'{name!r} is not a directory, and fetching it from the hub needs '
      f"huggingface_hub: pip install 'kdjax[train]'. {_WAY_OUT}"
    ) from None

  def get(offline: bool) -> pathlib.Path:
    def some(*patterns: str) -> pathlib.Path:
      return pathlib.Path(
        huggingface_hub.snapshot_download(
          name, allow_patterns=list(patterns), local_files_only=offline
        )
      )

    folder = some('*.json', '*.model', '*.txt')
    if weights and not any(some('model*.safetensors').glob('*.safetensors')):
      some('pytorch_model*.bin')
    return folder

  try:
    return fetch(name, get, patient)
  except Exception as error:  # The hub's client raises many kinds.
    check_disk(error)
    why = reason(error) if answers() else 'no network'
    raise FileNotFoundError(
      f'cannot fetch {name!r} from the Hugging Face hub ({why}), and there '
      f'is no directory of that name. {_WAY_OUT}'
    ) from None


def member(directory: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of a file in a model's directory, there or not.

  A downloaded directory may name files, and hold links, that lead out of it;
  nothing is read there. The hub's own cache does link: from `snapshots/ID/` to
  the `blobs/` beside `snapshots`, which is as good as inside.

  Raises:
    ValueError: it leads out, or isn't a file.
  """
  if pathlib.PureWindowsPath(name).name != name or '\0' in name:
    raise ValueError(f'{directory}: {name!r} is not the name of a file in it')
  return _inside(directory, directory / name)


def _inside(directory: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """Returns a path that leads to a file of a directory, or to none."""
  home = directory.resolve()
  homes = [home]
  if home.parent.name == 'snapshots':
    homes.append(home.parent.parent / 'blobs')
  try:
    real = path.resolve()
  except (OSError, RuntimeError) as error:  # A link to itself.
    raise ValueError(f'{path} is a link that leads nowhere: {error}') from None
  if not any(real.is_relative_to(each) for each in homes):
    raise ValueError(
      f'{path} is a link to {real}, outside of the directory, and kdjax '
      "follows none but those of the hub's cache: put the file in its place"
    )
  if path.exists() and not path.is_file():
    raise ValueError(f'{path} is not a file')
  return path


def check_members(directory: pathlib.Path) -> None:
  """Raises ValueError where a file of a directory leads out of it.

  For directories that libraries read, who follow all links.
  """
  for folder, folders, names in os.walk(directory):
    for path in (pathlib.Path(folder, name) for name in (*folders, *names)):
      if not path.is_dir() or path.is_symlink():
        _inside(directory, path)


def read_json(directory: pathlib.Path, name: str) -> dict[str, Any]:
  """Reads a JSON object of a directory; an error names the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it lies elsewhere, or isn't a JSON object.
  """
  path = member(directory, name)
  try:
    size = path.stat().st_size
    if size > _LARGEST_JSON:
      raise ValueError(f'{size} bytes are more than any such file has')
    found = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{path} is missing; a model directory holds config.json and '
      'model.safetensors'
    ) from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from None
  if not isinstance(found, dict):
    raise ValueError(f'{path} is not a JSON object, {{...}}')
  return found


def tokenizer_size(directory: pathlib.Path) -> int | None:
  """Returns one more than the largest id in tokenizer.json, None without any.

  Raises:
    ValueError: the file lies elsewhere, or its ids are none.
  """
  path = member(directory, 'tokenizer.json')
  if not path.exists():
    return None
  tokenizer = read_json(directory, path.name)
  model, added = tokenizer.get('model'), tokenizer.get('added_tokens')
  vocab = model.get('vocab') if isinstance(model, dict) else None
  ids = list(vocab.values()) if isinstance(vocab, dict) else []
  if isinstance(vocab, list):
    ids = list(range(len(vocab)))
  for token in added if isinstance(added, list) else ():
    ids.append(token.get('id') if isinstance(token, dict) else None)
  if not all(type(i) is int and i >= 0 for i in ids):
    raise ValueError(f'{path}: ids of tokens should be whole numbers')
  return max(ids) + 1 if ids else None
