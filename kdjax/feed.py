"""What a run is fed: every task's examples, as batches."""

import functools
from typing import Any

import jax
import numpy as np

from kdjax import data, identity, objective, types
from kdjax.checks import labels
from kdjax.config import ONLINE, Config, Task, task_section, tasks_of
from kdjax.data import pipeline, responses, tasks, vocabularies


def online(c: Config, goal: objective.Objective) -> list[str]:
  """Returns the tasks whose teacher responses are sampled at every step."""
  parts = tasks_of(c)
  return [
    name
    for name in sorted(goal.tasks())
    if 'teacher' in goal.sources(name)
    and parts[name].teacher_responses == ONLINE
  ]


def examples(
  c: Task,
  task: tasks.Task,
  split: str,
  vocabulary: vocabularies.Vocabulary,
  limit: int = 0,
) -> data.Examples:
  """Loads a split of a task: `limit` examples, or the task's (0: all)."""
  limits = [n for n in (limit, c.limit) if n]
  return data.load(
    task,
    split,
    vocabulary,
    max_prompt_tokens=c.max_prompt_tokens,
    max_response_tokens=c.max_response_tokens,
    max_teacher_prompt_tokens=c.max_teacher_prompt_tokens,
    on_long=c.on_long,
    on_bad_example=c.on_bad_example,
    limit=min(limits, default=None),
    chat_template=c.chat_template,
    teacher_prompts=c.teacher_prompts,
  )


def about(c: Task, task: tasks.Task, split: str) -> dict[str, Any]:
  """Returns what prompts are made of, for people and for messages."""
  names = (
    'chat_template',
    'limit',
    'max_prompt_tokens',
    'max_teacher_prompt_tokens',
    'on_bad_example',
    'on_long',
    'teacher_prompts',
  )
  return {
    'args': dict(task.args),
    'source': task.source.identity(split),
    **{name: getattr(c, name) for name in names},
  }


def shapes(c: Task, vocabulary: vocabularies.Vocabulary) -> dict[str, Any]:
  """Returns what gives a task's batches their shapes."""
  return {
    'max_prompt_tokens': c.max_prompt_tokens,
    'max_response_tokens': c.max_response_tokens,
    'max_teacher_prompt_tokens': c.max_teacher_prompt_tokens,
    'pad_id': vocabulary.pad_id,
    'prompt_padding': c.prompt_padding,
  }


def prompts(c: Task) -> types.Batch:
  """Returns the shapes of one example's prompts [1, S], and of its id."""

  def text(length):
    kinds = np.int32, np.bool_
    return types.Prompt(*(jax.ShapeDtypeStruct((1, length), x) for x in kinds))

  asked = c.max_teacher_prompt_tokens or c.max_prompt_tokens
  teacher = tuple(text(asked) for _ in c.teacher_prompts)
  return types.Batch(
    text(c.max_prompt_tokens),
    teacher or None,
    example_id=jax.ShapeDtypeStruct((1,), np.int32),
  )


def train_iterator(
  c: Config,
  main: tasks.Task,
  goal: objective.Objective,
  vocabulary: vocabularies.Vocabulary,
  rows: np.ndarray | None = None,
) -> Any:
  """Returns the endless iterator over training batches.

  Args:
    c: the config.
    main: the main task.
    goal: what the recipe draws from.
    vocabulary: the tokenizer.
    rows: see `pipeline.train_iterator`.

  Raises:
    FileNotFoundError: of the data or the teacher's responses.
    ValueError: the data lacks responses that the recipe needs.
  """

  def one(name: str, part: Task, task: tasks.Task) -> Any:
    found = examples(part, task, 'train', vocabulary)
    sources = goal.sources(name)
    _check_labels(c.recipe['name'], name, found, goal)
    if 'teacher' in sources and part.teacher_responses != ONLINE:
      found = responses.attach_teacher(
        found,
        part.teacher_responses,
        max_response_tokens=part.max_response_tokens,
        vocabulary_size=vocabulary.size,
        model=_teacher(c, part, vocabulary),
        logprobs=part.teacher_logprobs == 'cached',
        about=functools.partial(about, part, task, 'train'),
      )
    return pipeline.train_iterator(
      found,
      c.batch_size,
      seed=c.seed,
      rows=rows,
      with_references=bool(goal.foreign_rewards()),
      **shapes(part, vocabulary),
    )

  others = {
    name: one(name, c.tasks[name], tasks.get(part.name, **part.args))
    for name, part in sorted(c.tasks.items())
    if name in goal.tasks()
  }
  iterator = one('', c.task, main)
  return pipeline.Joint(iterator, others) if others else iterator


def counts(
  c: Config,
  main: tasks.Task,
  goal: objective.Objective,
  vocabulary: vocabularies.Vocabulary,
) -> dict[str, Any]:
  """Returns what a run reads, and how many bad examples it leaves out.

  So bad data of the splits that are read last is found first.

  Returns:
    {'train': {'examples': 98, 'left_out': {'bad UTF-8': 2}}, ...}; what is
    trained on has a 'sha256' too, and cached responses of a teacher have one.
  """
  parts = [('train', 0), (c.eval.test_split, c.eval.test_examples)]
  if c.eval.every:
    parts = [(c.eval.split, c.eval.examples), *parts]
  read = {}
  for split, limit in parts:
    # One split may serve several ends; 0 reads all of it.
    other = read.get(split, limit)
    read[split] = max(limit, other) if limit and other else 0
  found = {
    split: examples(c.task, main, split, vocabulary, limit)
    for split, limit in read.items()
  }
  told = {split: _told(each) for split, each in found.items()}
  for name in sorted({'', *goal.tasks()}):
    part, split, each = c.task, 'train', found['train']
    if name:
      part, split = c.tasks[name], f'{task_section(name)}/train'
      task = tasks.get(part.name, **part.args)
      each = examples(part, task, 'train', vocabulary)
    told[split] = {**_told(each), 'sha256': each.digest()}
    cached = part.teacher_responses != ONLINE
    if cached and 'teacher' in goal.sources(name):
      key = responses.digest(part.teacher_responses)
      told[split]['teacher_responses'] = key
  return told


def _told(found: data.Examples) -> dict[str, Any]:
  return {'examples': len(found), 'left_out': found.left_out.counts}


def _teacher(
  c: Config, part: Task, vocabulary: vocabularies.Vocabulary
) -> dict[str, Any] | None:
  """Identifies the teacher that must have given a task's responses."""
  if part.accept_other_teacher or not (c.teacher.path or c.teacher.config):
    return None
  return identity.model(c, 'teacher', vocabulary)


def _check_labels(
  recipe: str, name: str, found: data.Examples, goal: objective.Objective
) -> None:
  """Raises where examples lack responses that the recipe reads."""
  given = {'data': found.responses, 'rejected': found.rejected}
  held = [source for source, said in given.items() if said is not None]
  if lacking := labels.problems(recipe, goal, name, found.task, held):
    raise ValueError('; '.join(lacking))
