"""A run: a config's models and data, and what they are made into."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import optax

from kdjax import (
  data,
  distributed,
  evaluation,
  feed,
  objective,
  optimizers,
  partitioning,
  rewards,
  roles,
  state,
  step,
  types,
)
from kdjax.config import Config, Optimizer, tasks_of
from kdjax.data import pipeline, tasks, vocabularies
from kdjax.models import api


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
    return partitioning.place(self.mesh, self.student_params, self.rules)

  def initial_state(self) -> state.State:
    """Returns the state before the first update.

    Raises:
      ValueError: teacher and student don't fit what a term matches.
    """
    auxiliary = partitioning.place(self.mesh, self.auxiliary, self.rules)
    params = {'student': self.initial_params(), **auxiliary}
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state())
    # Compiled, so that moments are split from the start.
    create = jax.jit(self._create, donate_argnums=0, out_shardings=shardings)
    return create(params)

  def abstract_state(self) -> state.State:
    """Returns the shapes, dtypes and shardings of the state."""
    params = {'student': self.student_params, **self.auxiliary}
    shapes = jax.eval_shape(self._create, params)
    # Every device reads any of the memories' rows, and they are small.
    whole = partitioning.place(self.mesh, shapes.replay, {'embed': ''})
    shapes = dataclasses.replace(shapes, replay=None)
    placed = partitioning.place(self.mesh, shapes, self.rules)
    return dataclasses.replace(placed, replay=whole)

  def _create(self, params: dict[str, Any]) -> state.State:
    c, parts = self.config, tasks_of(self.config)
    length = c.task.max_response_tokens
    memories = tuple(
      step.memory(c.replay_size, feed.prompts(parts[name]), length)
      for name in self.objective.replayed()
    )
    return state.create(
      params,
      self.optimizer(),
      c.seed,
      stale=c.behaviour_sync > 0,
      replay=memories or None,
    )

  @functools.cached_property
  def rules(self) -> partitioning.Rules:
    """How the student and what trains with it are split."""
    return self._rules('student')

  def _rules(self, role: str) -> partitioning.Rules:
    changes = getattr(self.config, role).sharding
    model = getattr(self, role)
    return partitioning.make_rules(self.mesh, changes, model.config)

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
    return distributed.fetch(step.auxiliary(self.objective, both, key))

  def rehearse(self, program: step.Program, batch: types.Batch) -> None:
    """Tries what could fail a run only after it began.

    Args:
      program: of the step.
      batch: of the training data, on the host.

    Raises:
      ValueError: models, layers or responses don't fit what a term compares, or
        a reward isn't one finite number a response.
    """
    params = {'student': self.student_params, **self.auxiliary}
    rows = self.objective.rollout_rows(
      self.config.steps - 1, self.config.batch_size, self.config.seed
    )
    program.rehearse(params, self.frozen, self.place_batch(batch), rows)
    gold = batch.responses.get('data')
    if gold is None:
      # Some text or other: the prompts.
      gold = types.Response(batch.prompt.tokens, batch.prompt.mask)
    few = jax.tree.map(lambda x: x[:2], (batch.prompt, gold, batch.example_id))
    prompt, response, ids = few
    references = (batch.references or ())[:2]
    program.try_rewards(prompt, response, references, ids)

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
    return optimizers.build(*self._optimizer_configs())

  def _optimizer_configs(
    self,
  ) -> tuple[optimizers.OptimizerConfig, dict[str, optimizers.OptimizerConfig]]:
    c = self.config
    updates = c.steps * c.updates_per_rollout
    own = _with_updates(c.auxiliary_optimizer, updates)
    main = _with_updates(c.optimizer, updates)
    main = dataclasses.replace(main, trainable=roles.trainable(c))
    return main, dict.fromkeys(self.auxiliary, own)

  def settings(self) -> step.Settings:
    """Returns what a step is made of."""
    c, goal = self.config, self.objective
    return step.Settings(
      student=self.student,
      teacher=self.teacher if c.teacher_mix or self._reads_teacher() else None,
      objective=goal,
      optimizer=self.optimizer(),
      moves=optimizers.moves(*self._optimizer_configs()),
      max_new_tokens=c.task.max_response_tokens,
      sampling=self._sampling('student'),
      teacher_sampling=(
        self._sampling('teacher') if feed.online(c, goal) else None
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
      shared=c.share_programs,
    )

  def _sampling(self, role: str) -> dict[str, Any]:
    c = self.config
    section = c.sampling if role == 'student' else c.teacher_sampling
    gather = self._gathered(role) if section.gather else None
    return {**dataclasses.asdict(section), 'gather': gather}

  def _gathered(self, role: str) -> Any:
    """Returns how a model's parameters lie while it samples.

    Nothing splits their 'embed' axes then. None where nothing does anyway.
    """
    rules = self._rules(role)
    if all(self.mesh.shape[axis] == 1 for axis in rules['embed']):
      return None
    params = getattr(self, f'{role}_params')
    rules = {**rules, 'embed': ''}
    return partitioning.params_sharding(self.mesh, params, rules)

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

  def counts(self) -> dict[str, Any]:
    """Returns how many examples every split gives; see `feed.counts`."""
    return feed.counts(self.config, self.task, self.objective, self.vocabulary)

  def train_iterator(self) -> Any:
    """Returns the endless iterator over training batches; see `feed`."""
    rows = partitioning.local_rows(self.mesh, self.config.batch_size)
    return feed.train_iterator(
      self.config, self.task, self.objective, self.vocabulary, rows
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
    """Puts rows on the mesh, of which every process has all."""
    return partitioning.shard_batch(self.mesh, tree)

  def place_batch(self, batch: types.Batch) -> types.Batch:
    """Puts a training batch on the mesh; references stay on the host."""
    bare = dataclasses.replace(batch, references=None, tasks={})
    return dataclasses.replace(
      partitioning.shard_batch(self.mesh, bare, self.config.batch_size),
      references=batch.references,
      tasks={name: self.place_batch(x) for name, x in batch.tasks.items()},
    )


def _with_updates(c: Optimizer, updates: int) -> optimizers.OptimizerConfig:
  fields = dataclasses.asdict(c)
  fields['clip_norm'] = fields['clip_norm'] or None
  fields['trainable'] = fields['trainable'] or None
  return optimizers.OptimizerConfig(**fields, total_steps=updates)
