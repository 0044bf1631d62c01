"""From a config to everything that a run is made of."""

import dataclasses
import functools
import logging
from collections.abc import Iterator
from typing import Any

import jax
import optax

from kdjax import (
  data,
  evaluation,
  feed,
  memory,
  models,
  objective,
  optimizers,
  partitioning,
  recipes,
  rewards,
  roles,
  state,
  step,
  types,
)
from kdjax.checks import ROLES, given
from kdjax.config import Config, Optimizer
from kdjax.data import pipeline, tasks, vocabularies
from kdjax.models import api

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """A config's models and data.

  Attributes:
    config: what all of it was built from.
    vocabulary: the tokenizer that all models share.
    task: the main task's description.
    mesh: of all devices.
    objective: the recipe's terms.
    student: the model that trains.
    student_params: as it starts, on the host.
    teacher: the frozen model or None, with `teacher_params` on the devices.
    reward: the reward model or None, with `reward_params` on the devices.
    reference_params: on the devices, where a term reads a reference.
  """

  config: Config
  vocabulary: vocabularies.Vocabulary
  task: tasks.Task
  mesh: jax.sharding.Mesh
  objective: objective.Objective
  student: api.LanguageModel
  student_params: api.Params
  teacher: api.LanguageModel | None
  teacher_params: api.Params | None
  reward: api.LanguageModel | None = None
  reward_params: Any = None
  reference_params: api.Params | None = None

  def initial_params(self) -> api.Params:
    """Puts the student's first parameters on the devices."""
    return _place(self.mesh, self.student_params)

  def initial_state(self) -> state.State:
    """Returns the state before the first update.

    Raises:
      ValueError: teacher and student don't fit what a term matches.
    """
    return state.create(
      {'student': self.initial_params(), **_place(self.mesh, self.auxiliary)},
      self.optimizer(),
      self.config.seed,
      stale=self.config.behaviour_sync > 0,
    )

  @functools.cached_property
  def auxiliary(self) -> dict[str, Any]:
    """The first parameters of terms' own, by term.

    Raises:
      ValueError: teacher and student don't fit what a term matches.
    """
    both = {
      'student': (self.student, self.student_params),
      'teacher': (self.teacher, self.teacher_params),
    }
    key = jax.random.key(self.config.seed)
    return jax.device_get(step.auxiliary(self.objective, both, key))

  def rehearse(self, program: step.Program, batch: types.Batch) -> None:
    """Tries what could fail a run only after it began.

    Args:
      program: of the step.
      batch: of the training data, on the host.

    Raises:
      ValueError: models, layers or responses don't fit what a term compares, or
        a reward isn't one finite number a response.
    """
    bare = dataclasses.replace(batch, references=None)
    params = {'student': self.student_params, **self.auxiliary}
    rows = self.objective.rollout_rows(
      self.config.steps - 1, self.config.batch_size, self.config.seed
    )
    program.rehearse(params, self.frozen, bare, rows)
    gold = batch.responses.get('data')
    if gold is None:
      # Some text or other: the prompts.
      gold = types.Response(batch.prompt.tokens, batch.prompt.mask)
    given = jax.tree.map(lambda x: x[:2], (batch.prompt, gold))
    program.try_rewards(*given, (batch.references or ())[:2])

  @property
  def frozen(self) -> dict[str, Any]:
    """Parameters that don't train, by name."""
    found = {
      'teacher': self.teacher_params,
      'reward': self.reward_params,
      'reference': self.reference_params,
    }
    return {
      name: params for name, params in found.items() if params is not None
    }

  @property
  def metrics(self) -> tuple[str, ...]:
    """The names of the generation metrics."""
    return tuple(self.config.eval.metrics) or self.task.metrics

  def optimizer(self) -> optax.GradientTransformation:
    """Returns the optimizer of the student's and of terms' own parameters."""
    c = self.config
    updates = c.steps * c.updates_per_rollout
    own = _optimizer(c.auxiliary_optimizer, updates)
    return optimizers.build(
      _optimizer(c.optimizer, updates), dict.fromkeys(self.auxiliary, own)
    )

  def settings(self) -> step.Settings:
    """Returns what a step is made of."""
    c, goal = self.config, self.objective
    return step.Settings(
      student=self.student,
      teacher=self.teacher if c.teacher_mix or self._reads_teacher() else None,
      objective=goal,
      optimizer=self.optimizer(),
      max_new_tokens=c.task.max_response_tokens,
      sampling=dataclasses.asdict(c.sampling),
      teacher_sampling=(
        dataclasses.asdict(c.teacher_sampling) if feed.online(c, goal) else None
      ),
      teacher_mix=c.teacher_mix,
      reward_model=self.reward,
      rewards={name: rewards.get(name) for name in goal.foreign_rewards()},
      decode=self.vocabulary.decode,
      updates_per_rollout=c.updates_per_rollout,
      behaviour_sync=c.behaviour_sync,
      micro_batch=c.micro_batch_size or None,
      chunk_size=c.chunk_size or None,
      measure_every=c.log_every,
    )

  def _reads_teacher(self) -> bool:
    goal = self.objective
    return 'teacher' in goal.models() or bool(feed.online(self.config, goal))

  def program(self) -> step.Program:
    """Returns the jitted step."""
    return step.Program(self.settings())

  def examples(self, split: str, limit: int = 0) -> data.Examples:
    """Loads a split of the main task, `limit` examples (0: the task's)."""
    return feed.examples(
      self.config.task, self.task, split, self.vocabulary, limit
    )

  def train_iterator(self) -> Any:
    """Returns the endless iterator over training batches; see `feed`."""
    return feed.train_iterator(
      self.config, self.task, self.objective, self.vocabulary
    )

  def train_pairs(self) -> Any:
    """Returns the same, each batch with the one after it."""
    return pipeline.Ahead(self.train_iterator())

  def batches(
    self, examples: data.Examples, rows: int
  ) -> Iterator[tuple[types.Batch, int]]:
    """Yields every example once, in batches of `rows`."""
    shapes = feed.shapes(self.config.task, self.vocabulary)
    return pipeline.eval_batches(examples, rows, **shapes)

  def evaluator(self, role: str) -> evaluation.Evaluator:
    """Returns the evaluator of the 'student' or the 'teacher'."""
    c = self.config
    beams = (
      {'length_penalty': c.eval.length_penalty} if c.eval.beams > 1 else {}
    )
    compare = role == 'student' and c.eval.divergences
    return evaluation.Evaluator(
      model=getattr(self, role),
      vocabulary=self.vocabulary,
      max_new_tokens=c.task.max_response_tokens,
      metrics=self.metrics,
      temperature=c.eval.temperature,
      beams=c.eval.beams,
      generation=beams,
      teacher=self.teacher if compare else None,
      role=role,
      seed=c.seed,
      place=self.place,
    )

  def place(self, tree: Any) -> Any:
    """Puts a host's rows on the mesh."""
    return partitioning.shard_batch(self.mesh, tree)


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
  args = dict(c.recipe)
  goal = recipes.build(args.pop('name'), **args)
  mesh = partitioning.make_mesh(**dataclasses.asdict(c.mesh))
  named = [role for role in wanted if given(getattr(c, role))]
  _check_memory(c, named, mesh)
  vocabulary = vocabularies.load(c.task.vocabulary)
  parts = dict.fromkeys(ROLES, (None, None))
  for role in named:
    parts[role] = roles.load(role, c, vocabulary)
    logger.info('%s: %s', role, roles.describe(*parts[role]))
  reward, reward_params = parts['reward']
  if reward is not None:
    head = roles.load_reward_head(c)
    reward_params = {'model': reward_params, 'head': head}
  reference = None
  if 'reference' in goal.models():
    reference = _reference(*parts['student'], *parts['reference'])
  return Run(
    config=c,
    vocabulary=vocabulary,
    task=tasks.get(c.task.name, **c.task.args),
    mesh=mesh,
    objective=goal,
    student=parts['student'][0],
    student_params=parts['student'][1],
    teacher=parts['teacher'][0],
    teacher_params=_place(mesh, parts['teacher'][1]),
    reward=reward,
    reward_params=_place(mesh, reward_params),
    reference_params=_place(mesh, reference),
  )


def _reference(
  student: api.LanguageModel | None,
  params: api.Params,
  model: api.LanguageModel | None,
  own: api.Params,
) -> api.Params:
  """Returns the reference's parameters: its own, or the student's first."""
  if model is None:
    return params
  shapes = [jax.tree.map(lambda x: x.shape, each) for each in (params, own)]
  if student is None or shapes[0] != shapes[1]:
    raise ValueError(
      'the reference is of another shape than the student: name one of the '
      "student's architecture, or leave reference.path empty for the student "
      'as it starts'
    )
  return own


def _check_memory(c: Config, names: list[str], mesh: jax.sharding.Mesh) -> None:
  sizes = dict.fromkeys(ROLES, 0)
  for role in names:
    if path := getattr(c, role).path:
      sizes[role] = models.count_parameters(path)
  frozen = sum(size for role, size in sizes.items() if role != 'student')
  memory.check(sizes['student'], frozen, c.optimizer.name, mesh)


def _place(mesh: jax.sharding.Mesh, params: Any) -> Any:
  return jax.device_put(params, partitioning.params_sharding(mesh, params))


def _optimizer(c: Optimizer, updates: int) -> optimizers.OptimizerConfig:
  fields = dataclasses.asdict(c)
  fields['clip_norm'] = fields['clip_norm'] or None
  fields['trainable'] = fields['trainable'] or None
  return optimizers.OptimizerConfig(**fields, total_steps=updates)
