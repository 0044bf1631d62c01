"""A config's step without any arrays: shapes, and how they are split."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import (
  build,
  feed,
  models,
  partitioning,
  roles,
  step,
  types,
)
from kdjax.checks import given
from kdjax.config import ROLES, Config, Task
from kdjax.data import manifests, vocabularies
from kdjax.models import api, lora, public
from kdjax.objective import Objective, reward_models
from kdjax.run import Run


@dataclasses.dataclass(frozen=True)
class Tokens:
  """A tokenizer that isn't here, as far as its sizes go."""

  size: int
  eos_id: int
  pad_id: int

  def decode(self, ids: Sequence[int]) -> str:
    raise NotImplementedError('a plan reads no text')


@dataclasses.dataclass(frozen=True)
class Job:
  """What is compiled, as shapes, dtypes and shardings.

  Attributes:
    run: the config's, its parameters shapes.
    settings: of the step.
    state: before an update.
    batch: of training data.
    rows: rollouts a step, the most where their number changes.
    models: student, teacher, reward and reference, those that there are.
    known: the hub ids whose shapes are those that kdjax carries.
  """

  run: Run
  settings: step.Settings
  state: Any
  batch: types.Batch
  rows: int
  models: dict[str, tuple[api.LanguageModel, Any]]
  known: tuple[str, ...]

  @property
  def config(self) -> Config:
    return self.run.config

  @property
  def frozen(self) -> dict[str, Any]:
    """The parameters that an update reads and doesn't change."""
    named = {*self.settings.objective.models()}
    if self.settings.teacher is not None:
      named.add('teacher')  # also one that only samples
    return {k: v for k, v in self.run.frozen.items() if k in named}

  @property
  def mesh(self) -> jax.sharding.Mesh:
    return self.run.mesh


def make(c: Config, devices: Sequence[Any]) -> Job:
  """Returns the job of a config on devices that needn't be here.

  Raises:
    FileNotFoundError: a model is neither here nor known.
    ValueError: the mesh can't be made of the devices, or the batch not split.
  """
  mesh = _mesh(c, devices)
  tokens = _tokens(c)
  parts = dict.fromkeys(ROLES, (None, None))
  for role in ROLES:
    if given(getattr(c, role)):
      parts[role] = _model(role, c, tokens)
  model, params = parts['reward']
  if model is not None:
    head = jax.eval_shape(
      lambda: reward_models.init_head(jax.random.key(0), model.config.width)
    )
    parts['reward'] = model, {'model': params, 'head': head}
  run = build.assemble(c, mesh, tokens, parts)
  rows = {
    run.objective.rollout_rows(i, c.batch_size, c.seed)
    for i in range(0, c.steps, max(1, c.steps // 64))
  }
  return Job(
    run=run,
    settings=run.settings(),
    state=run.abstract_state(),
    batch=_batch(c, run.objective, mesh),
    rows=max(rows),
    models={role: part for role, part in parts.items() if part[0] is not None},
    known=_known(c, parts),
  )


def _mesh(c: Config, devices: Sequence[Any]) -> jax.sharding.Mesh:
  mesh = partitioning.make_mesh(devices=devices, **dataclasses.asdict(c.mesh))
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  rows = {'batch_size': c.batch_size, 'micro_batch_size': c.micro_batch_size}
  for name, size in rows.items():
    if size % parts:
      raise ValueError(
        f'{name}={size} does not divide over data={mesh.shape["data"]} times '
        f'fsdp={mesh.shape["fsdp"]}: set it to a multiple of {parts}, or '
        f'mesh.tensor to more than {mesh.shape["tensor"]}'
      )
  return mesh


def _tokens(c: Config) -> Any:
  """Returns the tokenizer, or its sizes where it can't be had."""
  name = c.task.vocabulary
  try:
    return vocabularies.load(name)
  except (OSError, ImportError):
    shape = public.config(name)
    if shape is None:
      raise
    eos = shape['eos_token_id']
    return Tokens(shape['num_tokens'], eos, shape.get('pad_token_id', eos))


def _model(role: str, c: Config, tokens: Any) -> tuple[Any, Any]:
  """Returns a role's model and the shapes of what `roles.load` returns."""
  m = getattr(c, role)
  source, options = roles.described(m, tokens)
  model, params = models.abstract(source, **options)
  if m.layers:
    kept = {}

    def shorten(params):
      kept['model'], short = models.copy_layers((model, params), dict(m.layers))
      return short

    params = jax.eval_shape(shorten, params)
    model = kept['model']
  if m.lora.rank:
    add = functools.partial(lora.add_lora, **dataclasses.asdict(m.lora))
    params = jax.eval_shape(add, params, jax.random.key(0))
  return roles.speaking(model, tokens), params


def _known(c: Config, parts: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the hub ids of which only `models.public` could tell."""
  paths = {getattr(c, role).path: model for role, (model, _) in parts.items()}
  return tuple(
    path
    for path, model in paths.items()
    if model is not None and json.loads(model.hf_config) == public.config(path)
  )


def _batch(c: Config, goal: Objective, mesh: jax.sharding.Mesh) -> types.Batch:
  tasks = {
    name: _batch_of(c, part, goal, name, mesh)
    for name, part in c.tasks.items()
    if name in goal.tasks()
  }
  main = _batch_of(c, c.task, goal, '', mesh)
  return dataclasses.replace(main, tasks=tasks)


def _batch_of(
  c: Config, task: Task, goal: Objective, name: str, mesh: jax.sharding.Mesh
) -> types.Batch:
  """Returns a task's part of a batch, with the responses that are data."""
  split = partitioning.batch_sharding(mesh)

  def rows(*shape, dtype=jnp.int32):
    shape = (c.batch_size, *shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

  length, floats = task.max_response_tokens, jnp.float32

  def response(source):
    top = None
    if source == 'teacher' and name in goal.cached:
      shape = length, _top_logprobs(c, task)
      top = types.TopK(
        rows(*shape), rows(*shape, dtype=floats), rows(length, dtype=floats)
      )
    mask = rows(length, dtype=jnp.bool_)
    return types.Response(rows(length), mask, teacher=top)

  prompts = jax.tree.map(
    lambda x: rows(*x.shape[1:], dtype=x.dtype), feed.prompts(task)
  )
  sources = {'data', 'rejected', 'teacher'} & {'data', *goal.sources(name)}
  if name in feed.online(c, goal):
    sources -= {'teacher'}
  return dataclasses.replace(
    prompts,
    responses={source: response(source) for source in sorted(sources)},
    example_id=rows(),
  )


def _top_logprobs(c: Config, task: Task) -> int:
  """Returns k of a cache of the teacher, or of the one that c would write."""
  try:
    return manifests.Manifest.read(pathlib.Path(task.teacher_responses)).k
  except FileNotFoundError:
    if not c.generate.top_logprobs:
      raise
    return c.generate.top_logprobs
