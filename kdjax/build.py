"""From a config to everything that a run is made of."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax

from kdjax import (
  memory,
  partitioning,
  recipes,
  roles,
)
from kdjax.checks import cached, given
from kdjax.config import ROLES, Config
from kdjax.data import tasks, vocabularies
from kdjax.models import api, kernels, storage
from kdjax.run import Run

logger = logging.getLogger(__name__)


def build(c: Config, wanted: tuple[str, ...] = ROLES) -> Run:
  """Loads the models and the tokenizer that a config names.

  Args:
    c: the config.
    wanted: the models that are; the others are None, as is one that the config
      doesn't name.

  Raises:
    FileNotFoundError: a file or hub id can't be had.
    ValueError: the parts don't fit each other; says which and the way out.
  """
  mesh = partitioning.make_mesh(**dataclasses.asdict(c.mesh))
  named = [role for role in wanted if given(getattr(c, role))]
  memory.check(*roles.account(c, named), c.optimizer.name, mesh)
  vocabulary = vocabularies.load(c.task.vocabulary)
  parts = dict.fromkeys(ROLES, (None, None))
  for role in named:
    parts[role] = roles.load(role, c, vocabulary)
    logger.info('%s: %s', role, roles.describe(*parts[role]))
  model, params = parts['reward']
  if model is not None:
    params = {'model': params, 'head': roles.load_reward_head(c)}
  return assemble(c, mesh, vocabulary, {**parts, 'reward': (model, params)})


def assemble(
  c: Config,
  mesh: jax.sharding.Mesh,
  vocabulary: vocabularies.Vocabulary,
  parts: Mapping[str, tuple[api.LanguageModel | None, Any]],
) -> Run:
  """Puts what doesn't train on the devices, and all of it together.

  Args:
    c: the config.
    mesh: of all devices.
    vocabulary: the tokenizer.
    parts: for each of `ROLES` a model and its parameters, or a pair of None. Of
      shapes in place of arrays comes a run of shapes with shardings.

  Raises:
    ValueError: the parts don't fit each other; says which and the way out.
  """
  goal = recipes.build(**c.recipe).caching(cached(c))
  rules = {
    role: partitioning.make_rules(mesh, getattr(c, role).sharding, model.config)
    for role, (model, _) in parts.items()
    if model is not None
  }
  reference = None
  if 'reference' in goal.models():
    reference = _reference(*parts['student'], *parts['reference'])
    if parts['reference'][0] is None and c.reference.weights != 'float32':
      reference = _narrow(reference, c.reference.weights)

  def place(params: Any, *roles: str) -> Any:
    found = next((rules[role] for role in roles if role in rules), {})
    return partitioning.place(mesh, params, found)

  return Run(
    config=c,
    vocabulary=vocabulary,
    task=tasks.get(c.task.name, **c.task.args),
    mesh=mesh,
    objective=goal,
    student=parts['student'][0],
    student_params=parts['student'][1],
    teacher=parts['teacher'][0],
    teacher_params=place(parts['teacher'][1], 'teacher'),
    reward=parts['reward'][0],
    reward_params=place(parts['reward'][1], 'reward'),
    reference_params=place(reference, 'reference', 'student'),
  )


def _reference(
  student: api.LanguageModel | None,
  params: api.Params,
  model: api.LanguageModel | None,
  own: api.Params,
) -> api.Params:
  """Returns the reference's parameters: its own, or the student's first."""
  if model is None:
    return kernels.base(params)
  if student is None or kernels.shapes(params) != kernels.shapes(own):
    raise ValueError(
      'the reference differs in shape from the student: name one of the '
      "student's architecture, or leave reference.path empty for the student "
      'as it starts'
    )
  return own


def _narrow(params: api.Params, weights: str) -> api.Params:
  narrow = functools.partial(storage.store_all, weights=weights)
  return jax.eval_shape(narrow, params) if _shapes(params) else narrow(params)


def _shapes(tree: Any) -> bool:
  """Whether a tree holds shapes in place of arrays."""
  leaves = jax.tree.leaves(tree)
  return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
