"""Students made of some of their teacher's layers."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.copied_layers import copied_layers
from kdjax.models import api, decoder_only, encoder_decoder
from kdjax.models import layers as layers_lib

Choice = int | Sequence[int]

# What Hugging Face configs call our configs' numbers of layers.
_HF_NAMES = {
  'encoder_layers': ('num_layers', 'num_hidden_layers'),
  'decoder_layers': ('num_decoder_layers',),
  'layers': ('num_hidden_layers', 'n_layer'),
}


def copy_layers(
  teacher: tuple[api.LanguageModel, api.Params],
  layers: Choice | Mapping[str, Choice],
  *,
  dtype: Any = None,
  scan: bool | None = None,
  remat: bool | None = None,
  remat_policy: str | None = None,
  attention: str | None = None,
  dropout: float | None = None,
  num_tokens: int | None = None,
) -> tuple[api.LanguageModel, api.Params]:
  """Returns a student that is its teacher without some of the layers.

  All else is copied as it is: embeddings, norms, relative positions, the head.

  Args:
    teacher: (model, params), as of `from_pretrained`.
    layers: which layers, from 0, such as (0, 6, 11), or how many (see
      `copied_layers`). Of an encoder-decoder that means either stack; a dict
      such as {'encoder': 3, 'decoder': (0, 11)} tells them apart, and keeps a
      stack that it doesn't name whole.
    dtype: as of `from_pretrained`; None keeps the teacher's, also below.
    scan: likewise.
    remat: likewise.
    remat_policy: likewise.
    attention: likewise.
    dropout: likewise.
    num_tokens: likewise.

  Returns:
    the model and its parameters, copies in NumPy arrays.

  Raises:
    ValueError: for a layer or a stack that the teacher doesn't have.

  References:
    Shleifer & Rush, 2020, https://arxiv.org/abs/2010.13002 ("shrink and
    fine-tune").
  """
  model, params = teacher
  fields = _fields(model)
  chosen = {
    stack: _indices(stack, choice, getattr(model.config, fields[stack]))
    for stack, choice in _by_stack(layers, fields).items()
  }
  student = _shorten(model, {fields[k]: v for k, v in chosen.items()})
  options = {
    'scan': scan,
    'remat': remat,
    'remat_policy': remat_policy,
    'attention': attention,
    'dtype': None if dtype is None else jnp.dtype(dtype),
  }
  given = {k: v for k, v in options.items() if v is not None}
  config = dataclasses.replace(student.config, **given)
  if dropout is not None:
    config = layers_lib.set_dropout(config, dropout)
  student = dataclasses.replace(
    student,
    config=config,
    num_tokens=min(num_tokens or model.num_tokens, model.vocab_size),
  )
  params = {
    name: _pick(value, chosen[name], config.scan) if name in chosen else value
    for name, value in params.items()
  }
  # Copies: a training step that is given its parameters away must not take
  # the teacher's with them. (Where shapes alone are asked for, there are none.)
  return student, jax.tree.map(
    lambda x: x if isinstance(x, jax.core.Tracer) else np.array(x), params
  )


def _fields(model: api.LanguageModel) -> dict[str, str]:
  """Returns the config's field with the number of layers, stack by stack."""
  if isinstance(model, encoder_decoder.EncoderDecoder):
    return {'encoder': 'encoder_layers', 'decoder': 'decoder_layers'}
  if isinstance(model, decoder_only.DecoderOnly):
    return {'decoder': 'layers'}
  raise ValueError(
    f'the teacher is a {type(model).__name__}; give the (model, params) of '
    'from_pretrained or from_config.'
  )


def _by_stack(layers, fields) -> dict[str, Choice | None]:
  if not isinstance(layers, Mapping):
    return dict.fromkeys(fields, layers)
  unknown = sorted(set(layers) - set(fields))
  if unknown:
    raise ValueError(
      f'layers names the stacks {unknown}; this teacher has {[*fields]}.'
    )
  return {**dict.fromkeys(fields), **layers}


def _indices(stack: str, choice: Choice | None, total: int) -> tuple[int, ...]:
  """Returns the chosen layers of one stack; None chooses all."""
  if choice is None:
    return tuple(range(total))
  if isinstance(choice, int | np.integer):
    return copied_layers(total, int(choice))
  indices = tuple(int(i) for i in choice)
  if not indices or not all(0 <= i < total for i in indices):
    raise ValueError(
      f'layers {indices} of the {stack}: name at least one, each from 0 to '
      f'{total - 1}, as the teacher has {total}.'
    )
  return indices


def _shorten(
  model: api.LanguageModel, chosen: Mapping[str, tuple[int, ...]]
) -> api.LanguageModel:
  """Returns the model with the chosen layers, by the config's fields."""
  changes: dict[str, Any] = {k: len(v) for k, v in chosen.items()}
  hf = json.loads(model.hf_config)
  if 'decoder_layers' in chosen:
    # Where a T5 config is silent, its decoder is as deep as its encoder.
    hf.setdefault('num_decoder_layers', model.config.decoder_layers)
  for field, count in changes.items():
    hf.update({name: count for name in _HF_NAMES[field] if name in hf})
  if windows := getattr(model.config, 'windows', ()):
    kept = tuple(windows[i] for i in chosen['layers'])
    changes['windows'] = kept if any(kept) else ()
  # Without the list, a layer's number says which kind it is of.
  kinds = hf.get('layer_types') or [
    'sliding_attention' if window else 'full_attention' for window in windows
  ]
  if hf.get('layer_types') or len(set(windows)) > 1:
    hf['layer_types'] = [kinds[i] for i in chosen['layers']]
  return dataclasses.replace(
    model,
    config=dataclasses.replace(model.config, **changes),
    hf_config=json.dumps(hf, sort_keys=True),
  )


def _stack(*arrays: Any) -> Any:
  traced = isinstance(arrays[0], jax.core.Tracer)
  return (jnp if traced else np).stack(arrays)


def _pick(stack: api.Params, chosen: Sequence[int], scan: bool) -> api.Params:
  """Returns the chosen blocks of a stack's, stacked where `scan` is True."""
  if 'layers' in stack:
    blocks = [
      jax.tree.map(lambda x, i=i: x[i], stack['layers']) for i in chosen
    ]
  else:
    blocks = [stack[f'layers_{i}'] for i in chosen]
  if scan:
    return {'layers': jax.tree.map(_stack, *blocks)}
  return {f'layers_{i}': block for i, block in enumerate(blocks)}
