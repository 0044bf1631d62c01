"""Whether a Hugging Face config, maybe a stranger's, can describe a model."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from kdjax.models import layers

_WIDTH, _LAYERS, _LENGTH = 2**20, 2**10, 2**30
# The largest whole number that a key may hold, some times that of any model
# there is: beyond it, shapes alone would take all time and memory.
_LARGEST = {
  'vocab_size': 2**24,
  **dict.fromkeys(('hidden_size', 'd_model', 'n_embd'), _WIDTH),
  **dict.fromkeys(('intermediate_size', 'd_ff', 'n_inner', 'ffn_dim'), _WIDTH),
  'word_embed_proj_dim': _WIDTH,
  **dict.fromkeys(('num_hidden_layers', 'num_layers', 'n_layer'), _LAYERS),
  'num_decoder_layers': _LAYERS,
  **dict.fromkeys(('num_attention_heads', 'num_heads', 'n_head'), 2**14),
  'num_key_value_heads': 2**14,
  **dict.fromkeys(('head_dim', 'd_kv'), 2**14),
  **dict.fromkeys(('max_position_embeddings', 'n_positions'), _LENGTH),
  'relative_attention_num_buckets': 2**16,
  'relative_attention_max_distance': _LENGTH,
}
_OPTIONAL = {'sliding_window': _LENGTH, 'max_window_layers': _LENGTH}


def check_sizes(hf: Mapping[str, Any]) -> None:
  """Raises ValueError naming all sizes of a config that no model has."""
  problems = []
  for least, largest in ((1, _LARGEST), (0, _OPTIONAL)):
    for name, most in largest.items():
      value = hf.get(name)
      whole = isinstance(value, int) and not isinstance(value, bool)
      if value is not None and not (whole and least <= value <= most):
        problems.append(
          f'{name}={_shown(value)}: expected a whole number from {least} to '
          f'{most}'
        )
  if problems:
    raise ValueError('; '.join(problems))


def check(config: Any) -> None:
  """Raises ValueError unless a model's own config is of its types, and sound.

  Args:
    config: of a family's `config`, made from what stands in a file.
  """
  hints = typing.get_type_hints(type(config))
  runtime = {field.name for field in dataclasses.fields(layers.Runtime)}
  problems = [
    f'{name}={_shown(getattr(config, name))}: expected {_people(kind)}'
    for name, kind in hints.items()
    if name not in runtime and not _fits(getattr(config, name), kind)
  ]
  if not problems:
    layers.activation(config.activation)
    problems += _unsound(config)
  if problems:
    raise ValueError('; '.join(problems))


def _unsound(config: Any) -> list[str]:
  """What the numbers of a config can't be, of the right types as they are."""
  problems = []
  for name in ('width', 'head_size', 'heads', 'mlp_width', 'vocab_size'):
    if getattr(config, name) < 1:
      problems.append(f'{name}={getattr(config, name)}: expected at least 1')
  for name in ('dropout', 'attention_dropout', 'embedding_dropout'):
    if not 0 <= getattr(config, name, 0) < 1:
      problems.append(
        f'{name}={getattr(config, name)}: expected at least 0, less than 1'
      )
  if config.norm_eps < 0:
    problems.append(f'norm_eps={config.norm_eps}: expected at least 0')
  if not 0 <= config.start_id < config.vocab_size:
    problems.append(
      f'start_id={config.start_id}: expected an id below {config.vocab_size}'
    )
  shared = getattr(config, 'kv_heads', 1)
  if shared < 1 or config.heads % shared:
    problems.append(f'{config.heads} heads do not divide into {shared}')
  return problems


def _fits(value: Any, kind: Any) -> bool:
  """Whether a value is of an annotation, its numbers finite."""
  origin, items = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, each) for each in items)
  if origin is tuple:
    return isinstance(value, tuple) and all(_fits(x, items[0]) for x in value)
  if kind is bool:
    return value is None or isinstance(value, bool)
  if isinstance(value, bool):
    return False
  if kind is float:
    number = isinstance(value, int | float)
    return number and abs(value) < 2**1000 and math.isfinite(value)
  return isinstance(value, kind)


def _people(kind: Any) -> str:
  return {int: 'a whole number', float: 'a finite number'}.get(kind) or str(
    getattr(kind, '__name__', kind)
  )


def ids(hf: Mapping[str, Any], name: str) -> tuple[int, ...]:
  """Returns the ids that a config states as one or as a list.

  Raises:
    ValueError: it states something else.
  """
  value = hf.get(name)
  found = value if isinstance(value, list | tuple) else [value]
  found = tuple(x for x in found if x is not None)
  if not all(type(x) is int and x >= 0 for x in found):
    raise ValueError(
      f'{name}={_shown(value)}: expected an id, or a list of ids'
    )
  return found


def _shown(value: Any) -> str:
  try:
    shown = repr(value)
  # Whole numbers of thousands of digits, and what is nested too deeply.
  except (ValueError, RecursionError):
    shown = type(value).__name__
  return shown if len(shown) <= 60 else f'{shown[:60]}...'
