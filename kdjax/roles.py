"""The models of a run, by the role they play in it."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from kdjax import hub, models, optimizers
from kdjax.config import Config, Model
from kdjax.data import vocabularies
from kdjax.models import api, directories, kernels, lora

# Where a run leaves the parameters that terms have of their own.
AUXILIARY = 'auxiliary.safetensors'


def load(
  role: str, config: Config, vocabulary: vocabularies.Vocabulary
) -> tuple[api.LanguageModel, api.Params]:
  """Returns a role's model and its parameters, on the host."""
  c = getattr(config, role)
  source, options = described(c, vocabulary)
  if c.config:
    key = jax.random.fold_in(jax.random.key(config.seed), role == 'teacher')
    model, params = models.from_config(source, key, init=c.init, **options)
    params = jax.device_get(params)
  else:
    _check_tokenizer(role, c.path, vocabulary)
    try:
      model, params = models.from_pretrained(source, **options)
    except ValueError as error:
      raise ValueError(f'the {role}: {error}') from None
  if c.layers:
    model, params = models.copy_layers((model, params), dict(c.layers))
  _check_sizes(f'{role} {c.path or "config"}', model, config, vocabulary)
  if c.lora.rank:
    params = jax.device_get(_add_lora(params, config))
  return speaking(model, vocabulary), params


def described(
  c: Model, vocabulary: vocabularies.Vocabulary
) -> tuple[Any, dict[str, Any]]:
  """Returns the path or the config of a model, and the options to make it."""
  names = ('dtype', 'weights', 'scan', 'remat', 'remat_policy', 'attention')
  options = {name: getattr(c, name) for name in (*names, 'dropout')}
  options['num_tokens'] = vocabulary.size
  defaults = {
    'vocab_size': vocabulary.size,
    'eos_token_id': vocabulary.eos_id,
    'pad_token_id': vocabulary.pad_id,
  }
  return c.path or {**defaults, **c.config}, options


def speaking(
  model: api.LanguageModel, vocabulary: vocabularies.Vocabulary
) -> api.LanguageModel:
  """Returns a model whose responses end and pad as the tokenizer's do."""
  # Gold responses end in its id, so models that learn from them do.
  ends = dict.fromkeys((*model.eos_ids, vocabulary.eos_id))
  return dataclasses.replace(
    model, eos_ids=tuple(ends), pad_id=vocabulary.pad_id
  )


def account(
  config: Config, names: Sequence[str]
) -> tuple[dict[str, int], int, int]:
  """Returns what models that are loaded will take, reading none of them.

  Returns:
    the number of parameters by role, the bytes of all of them, and the number
    of those that train.
  """
  counts, stored, training = {}, 0, 0
  for role in names:
    if not getattr(config, role).path:
      continue
    params = _abstract(role, config)
    counts[role], room = kernels.size(params)
    stored += room
    if role == 'student':
      pattern = trainable(config) or ''
      training = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if re.search(pattern, f'student/{optimizers.path_name(path)}')
      )
  return counts, stored, training


def trainable(config: Config) -> str | None:
  """Returns the pattern of what trains of the student; None for all."""
  pattern = config.optimizer.trainable or None
  return lora.trainable(pattern) if config.student.lora.rank else pattern


def _abstract(role: str, config: Config) -> api.Params:
  """Returns the shapes and dtypes of what `load` returns for a path."""
  c = getattr(config, role)
  _, params = models.abstract(c.path, weights=c.weights)
  if c.lora.rank:
    params = jax.eval_shape(lambda p: _add_lora(p, config), params)
  return params


def _add_lora(params: api.Params, config: Config) -> api.Params:
  key = jax.random.fold_in(jax.random.key(config.seed), 2)
  options = dataclasses.asdict(config.student.lora)
  return models.add_lora(params, key, **options)


def load_reward_head(config: Config) -> dict[str, Any]:
  """Returns the scalar head of the reward model.

  Raises:
    FileNotFoundError: its directory has none.
    ValueError: it is corrupt, or no head of finite numbers.
  """
  path = hub.member(hub.locate(config.reward.path), AUXILIARY)
  if not path.is_file():
    raise FileNotFoundError(
      f'{path.parent} is not a reward model: it lacks {AUXILIARY}, which the '
      "recipes 'reward_regression' and 'preference_reward' leave in student/"
    )
  tensors = directories.read_safetensors(path)
  ends = (name.partition('/') for name in tensors)
  heads = sorted(term for term, _, end in ends if end == 'kernel')
  head = heads[0] if len(heads) == 1 else 'reward'
  missing = {f'{head}/kernel', f'{head}/bias'} - set(tensors)
  if missing:
    raise ValueError(f'{path} has {sorted(tensors)}, but no {sorted(missing)}')
  found = {k: tensors[f'{head}/{k}'] for k in ('kernel', 'bias')}
  for (name, axes), tensor in zip((('kernel', 1), ('bias', 0)), found.values()):
    wrong = directories.unsound(tensor)
    if tensor.ndim != axes:
      wrong = f'the shape {tensor.shape}, expected {axes} axes'
    if wrong:
      raise ValueError(f'{path}: {head}/{name} has {wrong}')
  return found


def save_auxiliary(directory: pathlib.Path, params: Mapping[str, Any]) -> None:
  """Writes parameters of terms' own beside an exported student."""
  tensors = {
    optimizers.path_name(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(params))
  }
  if tensors:
    safetensors.numpy.save_file(tensors, directory / AUXILIARY)


def _check_sizes(
  name: str,
  model: api.LanguageModel,
  c: Config,
  vocabulary: vocabularies.Vocabulary,
) -> None:
  if model.vocab_size < vocabulary.size:
    raise ValueError(
      f'{name} has {model.vocab_size} embeddings, but the tokenizer '
      f"{vocabulary.spec!r} has {vocabulary.size} tokens: name the model's "
      'own tokenizer in task.vocabulary'
    )
  prompt, response = c.task.max_prompt_tokens, c.task.max_response_tokens
  limit = model.max_positions
  if limit is not None and prompt + response > limit:
    raise ValueError(
      f'task.max_prompt_tokens={prompt} and task.max_response_tokens='
      f'{response} add up to {prompt + response}, but {name} has {limit} '
      'positions: lower one of the two'
    )


def _check_tokenizer(
  role: str, path: str, vocabulary: vocabularies.Vocabulary
) -> None:
  """Raises unless a model's own tokenizer, where it has one, is the task's."""
  folder = hub.locate(path, weights=False)
  files = (
    'tokenizer.json',
    'tokenizer_config.json',
    'spiece.model',
    'tokenizer.model',
    'vocab.json',
  )
  if not any((folder / name).exists() for name in files):
    return
  # The SentencePiece model says the same without transformers' slow import.
  plain = hub.member(folder, 'spiece.model')
  own = vocabularies.load(str(plain if plain.exists() else folder))
  if own.fingerprint != vocabulary.fingerprint:
    raise ValueError(
      f"the {role} {path}'s tokenizer ({own.size} tokens) is not the task's, "
      f'{vocabulary.spec!r} ({vocabulary.size} tokens). Teacher and student '
      'must share one tokenizer: set task.vocabulary to it, and choose models '
      'that were trained with it.'
    )


def describe(model: api.LanguageModel, params: api.Params) -> str:
  """Returns one line about a model."""
  count, room = kernels.size(params)
  kind = json.loads(model.hf_config)['model_type']
  return (
    f'{kind} ({type(model).__name__}), {count / 1e6:.2f} M parameters in '
    f'{room / 2**20:.1f} MiB'
  )
