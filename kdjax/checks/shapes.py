"""What shapes tell of a model, before it is made or loaded."""

import dataclasses
import functools
import json
import re

import jax

from kdjax import models
from kdjax.config import Config
from kdjax.models import api, lora

# Whatever the arithmetic of shapes may raise.
_ERRORS = (
  ArithmeticError,
  AttributeError,
  LookupError,
  MemoryError,
  TypeError,
  ValueError,
)


def problems(c: Config, role: str) -> list[str]:
  """Returns what is wrong with a role's config, layers and patterns."""
  m = getattr(c, role)
  for stack, kept in m.layers.items():
    each = kept if isinstance(kept, tuple) else (kept,)
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in each)
    if stack not in ('encoder', 'decoder') or not (each and whole):
      return [
        f"{role}.layers={dict(m.layers)}: expected 'encoder' or 'decoder' to "
        'how many layers are kept, or which'
      ]
  if not m.config:
    return []
  # As deep as it may be, its layers are traced as one, unless they are named.
  named = role == 'student' and (m.lora.rank or c.optimizer.trainable)
  try:
    scan = m.scan if named else True
    model, params = _abstract(json.dumps(dict(m.config)), scan)
  except _ERRORS as error:
    return [f'{role}.config makes no model: {_told(error)}']
  found = []
  if m.init == 'copy' and not hasattr(model, 'init_to_copy'):
    found.append(f"{role}.init='copy' is for encoder-decoders only")
  try:
    if m.layers:
      copy = lambda params: models.copy_layers((model, params), m.layers)[1]
      params = jax.eval_shape(copy, params)
  except ValueError as error:
    found.append(f'{role}.layers: {_told(error)}')
  return found + _path_problems(c, params) if named else found


@functools.lru_cache
def _abstract(config: str, scan: bool) -> tuple[api.LanguageModel, api.Params]:
  """Returns the model of a config in JSON, and the shapes of its parameters."""
  # The tokenizer, which has these numbers, may be elsewhere.
  sizes = {'vocab_size': 8, 'eos_token_id': 1, 'pad_token_id': 0}
  return models.abstract({**sizes, **json.loads(config)}, scan=scan)


def _path_problems(c: Config, params: api.Params) -> list[str]:
  """Patterns that are found in no path of the student's parameters."""
  rank, pattern = c.student.lora.rank, c.optimizer.trainable

  def add(params):
    options = dataclasses.asdict(c.student.lora)
    return models.add_lora(params, jax.random.key(0), **options)

  try:
    params = jax.eval_shape(add, params) if rank else params
    wanted = re.compile(lora.trainable(pattern) if rank else pattern)
  except (re.error, OverflowError, RecursionError):
    return []  # reported with the other patterns
  except ValueError as error:
    return [f'student.lora.targets: {_told(error)}']
  paths = [
    f'student/{jax.tree_util.keystr(path, simple=True, separator="/")}'
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  if any(map(wanted.search, paths)):
    return []
  return [
    f'optimizer.trainable={pattern!r} matches no parameter path; paths '
    f'look like {paths[:3]}'
  ]


def _told(error: Exception) -> str:
  """Returns the first line of an error."""
  return next(iter(str(error).splitlines()), type(error).__name__)
