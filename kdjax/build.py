"""From a config to everything that a run is made of."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from kdjax import (
  data,
  evaluation,
  hub,
  memory,
  models,
  objective,
  optimizers,
  partitioning,
  recipes,
  step,
  types,
)
from kdjax.checks import ROLES, given
from kdjax.config import Config
from kdjax.data import pipeline, responses, tasks, vocabularies
from kdjax.models import api

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """A config's models and data.

  Attributes:
    config: what all of it was built from.
    vocabulary: the tokenizer that both models share.
    task: the task's description.
    mesh: of all devices.
    objective: the recipe's terms.
    student: the model that trains.
    student_params: as it starts, on the host.
    teacher: the frozen model or None, with `teacher_params` on the devices.
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

  def initial_params(self) -> api.Params:
    """Puts the student's first parameters on the devices."""
    return _place(self.mesh, self.student_params)

  @property
  def frozen(self) -> dict[str, api.Params]:
    """Parameters that don't train, by name."""
    return {} if self.teacher is None else {'teacher': self.teacher_params}

  @property
  def metrics(self) -> tuple[str, ...]:
    """The names of the generation metrics."""
    return tuple(self.config.eval.metrics) or self.task.metrics

  def optimizer(self):
    """Returns the optimizer of the student's parameters."""
    fields = dataclasses.asdict(self.config.optimizer)
    fields['clip_norm'] = fields['clip_norm'] or None
    fields['trainable'] = fields['trainable'] or None
    return optimizers.build(
      optimizers.OptimizerConfig(**fields, total_steps=self.config.steps)
    )

  def program(self) -> step.Program:
    """Returns the jitted step."""
    c = self.config
    uses_teacher = self.objective.needs_teacher
    return step.Program(
      step.Settings(
        student=self.student,
        teacher=self.teacher if uses_teacher else None,
        objective=self.objective,
        optimizer=self.optimizer(),
        max_new_tokens=c.task.max_response_tokens,
        sampling=dataclasses.asdict(c.sampling),
        micro_batch=c.micro_batch_size or None,
        measure_every=c.log_every,
      )
    )

  def examples(self, split: str, limit: int = 0) -> data.Examples:
    """Loads a split of the task: `limit` examples, or the task's (0: all)."""
    t = self.config.task
    limits = [n for n in (limit, t.limit) if n]
    return data.load(
      self.task,
      split,
      self.vocabulary,
      max_prompt_tokens=t.max_prompt_tokens,
      max_response_tokens=t.max_response_tokens,
      on_long=t.on_long,
      limit=min(limits, default=None),
      chat_template=t.chat_template,
    )

  def _shapes(self) -> dict[str, Any]:
    t = self.config.task
    return {
      'max_prompt_tokens': t.max_prompt_tokens,
      'max_response_tokens': t.max_response_tokens,
      'pad_id': self.vocabulary.pad_id,
      'prompt_padding': t.prompt_padding,
      'shard_index': jax.process_index(),
      'shard_count': jax.process_count(),
    }

  def train_iterator(self) -> Any:
    """Returns the endless iterator over training batches.

    Raises:
      FileNotFoundError: of the data or the teacher's responses.
      ValueError: the data has no gold responses, and the recipe needs them.
    """
    c = self.config
    examples = self.examples('train')
    if 'data' in self.objective.sources() and examples.responses is None:
      raise ValueError(
        f'recipe {c.recipe["name"]!r} learns from gold responses, but the '
        f'task {self.task.name!r} has none: name their column in '
        'task.args.target, or choose a recipe that learns from the student '
        "alone, such as 'on_policy_kd'"
      )
    if 'teacher' in self.objective.sources():
      examples = responses.attach_teacher(
        examples,
        c.teacher_responses,
        max_response_tokens=c.task.max_response_tokens,
      )
    rows = c.batch_size // jax.process_count()
    return pipeline.train_iterator(
      examples, rows, seed=c.seed, **self._shapes()
    )

  def batches(
    self, examples: data.Examples, rows: int
  ) -> Iterator[tuple[types.Batch, int]]:
    """Yields every example once, in batches of `rows`."""
    return pipeline.eval_batches(examples, rows, **self._shapes())

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


def build(c: Config, roles: tuple[str, ...] = ROLES) -> Run:
  """Loads the models and the tokenizer that a config names.

  Args:
    c: the config.
    roles: the models that are wanted; the others are None, as is a teacher
      that the config doesn't name.

  Raises:
    FileNotFoundError: a file or hub id can't be had.
    ValueError: the parts don't fit each other; says which and the way out.
  """
  args = dict(c.recipe)
  goal = recipes.build(args.pop('name'), **args)
  mesh = partitioning.make_mesh(**dataclasses.asdict(c.mesh))
  wanted = [role for role in roles if given(getattr(c, role))]
  _check_memory(c, wanted, mesh)
  vocabulary = vocabularies.load(c.task.vocabulary)
  parts = dict.fromkeys(ROLES, (None, None))
  for role in wanted:
    parts[role] = _load(role, c, vocabulary)
    logger.info('%s: %s', role, describe(*parts[role]))
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
  )


def _check_memory(c: Config, roles: list[str], mesh: jax.sharding.Mesh) -> None:
  sizes = dict.fromkeys(ROLES, 0)
  for role in roles:
    if path := getattr(c, role).path:
      sizes[role] = models.count_parameters(path)
  memory.check(sizes['student'], sizes['teacher'], c.optimizer.name, mesh)


def _place(mesh: jax.sharding.Mesh, params: api.Params) -> api.Params:
  return jax.device_put(params, partitioning.params_sharding(mesh, params))


def _load(
  role: str, config: Config, vocabulary: vocabularies.Vocabulary
) -> tuple[api.LanguageModel, api.Params]:
  """Returns a role's model and its parameters, on the host."""
  c = getattr(config, role)
  options: Mapping[str, Any] = {
    'dtype': c.dtype,
    'scan': c.scan,
    'remat': c.remat,
    'dropout': c.dropout,
    'num_tokens': vocabulary.size,
  }
  if c.config:
    key = jax.random.fold_in(jax.random.key(config.seed), role == 'teacher')
    defaults = {
      'vocab_size': vocabulary.size,
      'eos_token_id': vocabulary.eos_id,
      'pad_token_id': vocabulary.pad_id,
    }
    model, params = models.from_config(
      {**defaults, **c.config}, key, init=c.init, **options
    )
    params = jax.device_get(params)
  else:
    _check_tokenizer(role, c.path, vocabulary)
    model, params = models.from_pretrained(c.path, **options)
  _check_sizes(f'{role} {c.path or "config"}', model, config, vocabulary)
  # Gold responses end in the tokenizer's id, so models that learn from them do.
  ends = dict.fromkeys((*model.eos_ids, vocabulary.eos_id))
  return dataclasses.replace(
    model, eos_ids=tuple(ends), pad_id=vocabulary.pad_id
  ), params


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
  own = vocabularies.load(str(folder))
  if own.fingerprint != vocabulary.fingerprint:
    raise ValueError(
      f"the {role} {path}'s tokenizer ({own.size} tokens) is not the task's, "
      f'{vocabulary.spec!r} ({vocabulary.size} tokens). Teacher and student '
      'must share one tokenizer: set task.vocabulary to it, and choose models '
      'that were trained with it.'
    )


def describe(model: api.LanguageModel, params: api.Params) -> str:
  """Returns one line about a model."""
  count = sum(x.size for x in jax.tree.leaves(params))
  kind = type(model).__name__
  return f'{model.family} {kind}, {count / 1e6:.2f} M parameters'
