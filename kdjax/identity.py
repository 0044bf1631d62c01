"""Which model it is, by content: two with one identity respond alike."""

import dataclasses
import pathlib
from typing import Any

from kdjax import checksums, hub, roles
from kdjax.config import Config, Model
from kdjax.data import vocabularies

# What a model's files say of its responses, beside its weights.
_SETTINGS = ('config.json', 'generation_config.json')


def model(
  config: Config, role: str, vocabulary: vocabularies.Vocabulary
) -> dict[str, Any]:
  """Returns what decides over a model's parameters, as digests.

  Of a directory's files, which are read once (`checksums.known_sha256`); of a
  fresh model, the config and the seed that it is drawn from. Where the files
  lie doesn't matter.

  Raises:
    FileNotFoundError: there is no such model.
  """
  c = getattr(config, role)
  found: dict[str, Any] = {'role': role, 'layers': dict(c.layers)}
  if c.config:
    source, _ = roles.described(c, vocabulary)
    found |= {
      'config': checksums.digest(source),
      'init': c.init,
      'seed': config.seed,
    }
  else:
    folder = hub.locate(c.path)
    found |= _digests(folder)
  if c.lora.rank:
    found |= {'lora': dataclasses.asdict(c.lora), 'seed': config.seed}
  return found


def numerics(c: Model) -> dict[str, str]:
  """Returns what decides over how a model's numbers are rounded."""
  return {name: getattr(c, name) for name in ('dtype', 'weights', 'attention')}


def _digests(folder: pathlib.Path) -> dict[str, str]:
  """Returns digests of a directory's settings and of its weights."""
  tensors = set(folder.glob('*.safetensors')) - {folder / roles.AUXILIARY}
  parts = {
    'config': [
      path for path in map(folder.joinpath, _SETTINGS) if path.is_file()
    ],
    # Safetensors go before torch's files, as in `models.from_pretrained`.
    'weights': sorted(tensors or folder.glob('*.bin')),
  }
  return {
    name: checksums.digest({x.name: checksums.known_sha256(x) for x in paths})
    for name, paths in parts.items()
  }
