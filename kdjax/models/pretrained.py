"""Models from Hugging Face configs and directories, and back."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from kdjax import hub
from kdjax.models import (
  api,
  config_checks,
  directories,
  families,
  hf,
  kernels,
  layers,
  public,
  storage,
)


def from_config(
  hf_config: Any,
  key: jax.Array,
  *,
  init: str = 'standard',
  weights: str = 'float32',
  **options: Any,
) -> tuple[api.LanguageModel, api.Params]:
  """Returns a freshly initialised model.

  Args:
    hf_config: a transformers config, or the dict that its config.json holds.
    key: PRNG key of the initialisation.
    init: 'standard', or 'copy' (encoder-decoders: `init_to_copy`).
    weights: what parameters are stored in, see `from_pretrained`.
    **options: see `from_pretrained`.

  Raises:
    ValueError: if the config's family or one of its values isn't implemented.
  """
  if not isinstance(hf_config, Mapping):
    hf_config = hf_config.to_dict()
  model = _build(hf_config, **options)
  params = jax.jit(functools.partial(_init, model))(key)
  if init == 'copy':
    if not hasattr(model, 'init_to_copy'):
      raise ValueError("init='copy' is for encoder-decoders only")
    params = model.init_to_copy(params)
  elif init != 'standard':
    raise ValueError(f"init={init!r}: expected 'standard' or 'copy'")
  narrow = functools.partial(storage.store_all, weights=weights)
  return model, jax.jit(narrow)(params)


def from_pretrained(
  path_or_id: str | pathlib.Path,
  dtype: Any = jnp.float32,
  *,
  weights: str = 'float32',
  trust_remote_code: bool = False,
  **options: Any,
) -> tuple[api.LanguageModel, api.Params]:
  """Loads a model from a directory or the Hugging Face hub.

  Args:
    path_or_id: a directory with config.json and safetensors, or a hub id.
    dtype: what matrices are multiplied in.
    weights: what they are stored in: 'float32', 'bfloat16' (which changes
      nothing where `dtype` is it, too), or 'int8' for the layers' (embeddings
      and heads are bfloat16 then); see `storage`.
    trust_remote_code: refused; here so that the refusal can say more.
    **options: `scan` (layers scanned: compiles fast; unrolled, the default,
      decodes faster), `remat` (recompute layers in the backward pass),
      `remat_policy` (see `layers.REMAT_POLICIES`), `attention` ('plain', 'xla'
      or 'cudnn', the last for bfloat16 on NVIDIA GPUs: see
      `layers.choose_attention`), `dropout` (a rate in place of the config's),
      `num_tokens` (ids at and above it are padding; default: what
      the directory's tokenizer tells, else the width of the head).

  Returns:
    the model and its parameters, as NumPy arrays (in 'int8', `kernels.Int8`
    of such).

  Raises:
    FileNotFoundError: if there are no such files.
    ValueError: if the files are corrupt or do not fit the config, or for
      unknown `weights`.
  """
  storage.check_weights(weights)
  if trust_remote_code:
    raise ValueError(
      'trust_remote_code=True: kdjax never runs code from checkpoints. Leave '
      f'it out: families {sorted(families.FAMILIES)} need none. To add a '
      'family, see CONTRIBUTING.md.'
    )
  directory = hub.locate(str(path_or_id))
  config = directories.read_config(directory)
  options.setdefault('num_tokens', hub.tokenizer_size(directory))
  model = _of_directory(directory, config, dtype=dtype, **options)
  tensors = directories.read_tensors(directory)
  _check_depth(directory, model, len(tensors))
  model = _fit_head(model, config, tensors)
  shapes = {k: v.shape for k, v in _flat(_abstract(model)).items()}
  try:
    found = hf.from_tensors(families.get(config), shapes, tensors)
  except ValueError as error:
    raise ValueError(f'{directory}: {error}') from None
  # One by one, each freed when it is stored: no second copy of the file, and
  # none at all of what is stored as it was.
  del tensors
  params = {k: storage.store(k, found.pop(k), weights) for k in [*found]}
  return model, _restack(model, traverse_util.unflatten_dict(params, sep='/'))


def abstract(
  path_or_config: str | pathlib.Path | Mapping[str, Any],
  *,
  weights: str = 'float32',
  **options: Any,
) -> tuple[api.LanguageModel, api.Params]:
  """Returns a model and the shapes of its parameters, without any weights.

  Args:
    path_or_config: a directory, a hub id, or what a config.json holds. A hub id
      that `public` has needs no hub.
    weights: see `from_pretrained`.
    **options: likewise.

  Raises:
    FileNotFoundError: if there is no such config.
    ValueError: if its family isn't implemented.
  """
  config = path_or_config
  if not isinstance(config, Mapping):
    config = _config_of(str(config))
  options.setdefault('num_tokens', config.get('num_tokens'))
  model = _build(config, **options)
  # The key is traced, too: no device is needed.
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
  narrow = functools.partial(storage.store_all, weights=weights)
  return model, jax.eval_shape(narrow, shapes)


def _config_of(path_or_id: str) -> Mapping[str, Any]:
  """Returns a model's config with its tokenizer's size, `num_tokens`."""
  own = public.config(path_or_id)
  try:
    directory = hub.locate(path_or_id, weights=False, patient=own is None)
  except (OSError, ImportError):
    if own:
      return own
    raise
  config = directories.read_config(directory)
  return {**config, 'num_tokens': hub.tokenizer_size(directory)}


def save_pretrained(
  directory: str | pathlib.Path,
  model: api.LanguageModel,
  params: api.Params,
  dtype: Any = np.float32,
) -> None:
  """Writes what transformers loads unchanged: config.json and safetensors.

  Args:
    directory: made if it isn't there.
    model: a model of `from_config` or `from_pretrained`.
    params: its parameters; written as the arrays that they stand for, a
      student's factors added to its matrices (`add_lora`).
    dtype: of the tensors in the file.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  config = json.loads(model.hf_config)
  family = families.get(config)
  config = {**family.DEFAULTS, **config}
  flat = _flat(_unstack(model, kernels.merge(params)))
  tensors = hf.to_tensors(family, jax.tree.map(np.asarray, flat))
  tensors = {k: v.astype(dtype) for k, v in tensors.items()}
  safetensors.numpy.save_file(
    tensors, directory / 'model.safetensors', metadata={'format': 'pt'}
  )
  name = np.dtype(dtype).name
  config = {**config, 'architectures': [family.ARCHITECTURE], 'dtype': name}
  if config.get('is_encoder_decoder'):
    # transformers asks the config for it when it is given labels.
    config['decoder_start_token_id'] = model.config.start_id
  else:
    config['tie_word_embeddings'] = model.config.tied_head
  _write_json(directory / 'config.json', config)
  eos = list(model.eos_ids) or None
  eos = eos[0] if eos and len(eos) == 1 else eos
  generation = {'eos_token_id': eos, 'pad_token_id': model.pad_id}
  if config.get('is_encoder_decoder'):
    generation['decoder_start_token_id'] = model.config.start_id
  _write_json(directory / 'generation_config.json', generation)


def _build(
  hf_config: Mapping[str, Any],
  *,
  dtype: Any = jnp.float32,
  scan: bool = False,
  remat: bool = False,
  remat_policy: str = 'nothing',
  attention: str = 'plain',
  dropout: float | None = None,
  num_tokens: int | None = None,
) -> api.LanguageModel:
  """Returns the model that a Hugging Face config describes."""
  family = families.get(hf_config)
  settings = {**family.DEFAULTS, **hf_config}
  kind = hf_config['model_type']
  config_checks.check_sizes(settings)
  eos = config_checks.ids(settings, 'eos_token_id')
  pad = settings.get('pad_token_id')
  if pad == -1:  # early conversions write that for none
    pad = None
  pad = next(
    iter(config_checks.ids({'pad_token_id': pad}, 'pad_token_id')), None
  )
  try:
    config = family.config(settings)
  except KeyError as error:
    raise ValueError(f'the {kind} config lacks {error}; is it whole?') from None
  except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
    raise ValueError(f'the {kind} config makes no model: {error}') from None
  config_checks.check(config)
  config = dataclasses.replace(
    config,
    dtype=jnp.dtype(dtype),
    scan=scan,
    remat=remat,
    remat_policy=remat_policy,
    attention=attention,
  )
  if dropout is not None:
    config = layers.set_dropout(config, dropout)
  return family.MODEL(
    config=config,
    num_tokens=min(num_tokens or config.vocab_size, config.vocab_size),
    eos_ids=eos,
    pad_id=pad if pad is not None else (eos[0] if eos else 0),
    hf_config=json.dumps(dict(hf_config), sort_keys=True, default=str),
  )


def _of_directory(
  directory: pathlib.Path, config: Mapping[str, Any], **options: Any
) -> api.LanguageModel:
  """`_build`, with errors that name the file."""
  try:
    return _build(config, **options)
  except ValueError as error:
    raise ValueError(f'{directory / "config.json"}: {error}') from None


def _check_depth(
  directory: pathlib.Path, model: api.LanguageModel, tensors: int
) -> None:
  """Raises where files hold less than a tensor a layer: shapes take time."""
  c = model.config
  depths = ('layers', 'encoder_layers', 'decoder_layers')
  depth = sum(getattr(c, name, 0) for name in depths)
  if tensors < depth:
    raise ValueError(
      f'{directory}: config.json has {depth} layers, but the files hold '
      f'{tensors} tensors'
    )


def _fit_head(
  model: api.LanguageModel,
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
) -> api.LanguageModel:
  """Ties or unties the head where the tensors say otherwise than the config.

  A head that equals no other tensor is not a tied one; transformers 5 obeys the
  file here, too. It ties T5's heads and saves none, whatever the original
  config said; its T5 configs are told by `scale_decoder_outputs`.
  """
  tied = model.config.tied_head
  head = tensors.get('lm_head.weight')
  if head is None:
    tied = tied or 'scale_decoder_outputs' in config
  elif tied:
    tied = any(
      name != 'lm_head.weight' and np.array_equal(tensor, head)
      for name, tensor in tensors.items()
    )
  fitted = dataclasses.replace(model.config, tied_head=tied)
  return dataclasses.replace(model, config=fitted)


def _init(model: api.LanguageModel, key: jax.Array) -> api.Params:
  """Initialises all layers as one: it compiles in a fraction of the time.

  So `scan` doesn't change what a key gives, either.
  """
  # Attention has no say in it, and 'cudnn' wouldn't trace without a GPU.
  config = dataclasses.replace(model.config, scan=True, attention='plain')
  stacked = dataclasses.replace(model, config=config)
  params = stacked.init(key)
  return params if model.config.scan else _unstack(stacked, params)


def _flat(params: api.Params) -> dict[str, Any]:
  return traverse_util.flatten_dict(params, sep='/')


def _abstract(model: api.LanguageModel) -> api.Params:
  """Shapes of the parameters, with layers apart from each other."""
  unrolled = dataclasses.replace(model.config, scan=False)
  model = dataclasses.replace(model, config=unrolled)
  return jax.eval_shape(model.init, jax.random.key(0))


def _restack(model: api.LanguageModel, params: api.Params) -> api.Params:
  """Stacks `layers_0`, `layers_1`, ... into `layers` where the model scans."""
  if not model.config.scan:
    return params
  out = {}
  for name, value in params.items():
    if isinstance(value, dict) and 'layers_0' in value:
      layers = [value[f'layers_{i}'] for i in range(len(value))]
      value = {'layers': jax.tree.map(lambda *x: np.stack(x), *layers)}
    out[name] = value
  return out


def _unstack(model: api.LanguageModel, params: api.Params) -> api.Params:
  """Undoes `_restack`."""
  if not model.config.scan:
    return params
  out = {}
  for name, value in params.items():
    if isinstance(value, dict) and 'layers' in value:
      length = jax.tree.leaves(value)[0].shape[0]
      value = {
        f'layers_{i}': jax.tree.map(lambda x, i=i: x[i], value['layers'])
        for i in range(length)
      }
    out[name] = value
  return out


def _write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n')
