"""Where models are: shipped with kdjax, in a directory, or on the hub."""

import pathlib

EMBEDDED = pathlib.Path(__file__).parent / 'models' / 'assets'
_PREFIX = 'kdjax:'
_WAY_OUT = (
  'Give the directory of a downloaded model, or use a config that needs no '
  'hub, such as configs/gkd_xsum.py:embedded.'
)


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


def locate(path_or_id: str, weights: bool = True) -> pathlib.Path:
  """Returns a model's directory, downloading a hub id's files if need be.

  Args:
    path_or_id: a directory, a hub id, or `kdjax:NAME` for a shipped model.
    weights: False to download no more than the config and the tokenizer.

  Raises:
    FileNotFoundError: if there is no such model, or the hub can't be reached.
    ImportError: for a hub id without the hub's client.
  """
  if path_or_id.startswith(_PREFIX):
    return _embedded(path_or_id.removeprefix(_PREFIX))
  path = pathlib.Path(path_or_id).expanduser()
  if path.is_dir():
    return path
  if path_or_id.startswith(('/', '.', '~')) or path_or_id.count('/') > 1:
    raise FileNotFoundError(f'no model directory at {path_or_id}. {_WAY_OUT}')
  return _download(path_or_id, weights)


def _embedded(name: str) -> pathlib.Path:
  folder = EMBEDDED / name
  if not folder.is_dir():
    names = sorted(f'{_PREFIX}{p.name}' for p in EMBEDDED.glob('*'))
    raise FileNotFoundError(
      f'kdjax ships no model {_PREFIX}{name}; it ships {names}'
    )
  return folder


def _download(name: str, weights: bool) -> pathlib.Path:
  try:
    import huggingface_hub
  except ImportError:
    raise ImportError(
      f'{name!r} is not a directory, and fetching it from the hub needs '
      f"huggingface_hub: pip install 'kdjax[train]'. {_WAY_OUT}"
    ) from None
  offline = not answers()

  def fetch(*patterns: str) -> pathlib.Path:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        name, allow_patterns=list(patterns), local_files_only=offline
      )
    )

  try:
    folder = fetch('*.json', '*.model', '*.txt')
    if weights and not any(fetch('model*.safetensors').glob('*.safetensors')):
      fetch('pytorch_model*.bin')
  except Exception as error:  # The hub's client raises many kinds.
    reason = 'no network' if offline else type(error).__name__
    raise FileNotFoundError(
      f'cannot fetch {name!r} from the Hugging Face hub ({reason}), and there '
      f'is no directory of that name. {_WAY_OUT}'
    ) from None
  return folder
