"""Materialises a task: text through a seqio Task to ragged arrays, cached.

seqio says what a task is; grain (see `pipeline`) says in what order examples
come. Between the two, a split is tokenised once and kept on disk.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from kdjax import checksums
from kdjax.data import examples as examples_lib
from kdjax.data import (
  faults,
  gathering,
  in_tensorflow,
  tasks,
  vocabularies,
)
from kdjax.data import limits as limits_lib
from kdjax.data import tokens as tokens_lib

logger = logging.getLogger(__name__)

# Part of every cache's key: change it with the layout or meaning of the files.
_CACHE_VERSION = 3
# Texts go through seqio so many at a time: four times as fast as one by one.
_CHUNK = 512
# Characters of a text that goes through the tokenizer itself: TensorFlow's
# takes quadratic time for those that it doesn't know, hours for 10 MB.
_LONG = 20_000
_MARK = 'kdjax-content'
_INPUT = '{input}'


def load(
  task: tasks.Task | str,
  split: str,
  vocabulary: vocabularies.Vocabulary | str,
  *,
  max_prompt_tokens: int | None = None,
  max_response_tokens: int | None = None,
  max_teacher_prompt_tokens: int | None = None,
  on_long: str = 'error',
  on_bad_example: str = 'error',
  limit: int | None = None,
  cache_dir: str | os.PathLike | None = None,
  chat_template: bool = False,
  teacher_prompts: Sequence[str] = (),
) -> examples_lib.Examples:
  """Loads a split of a task.

  Responses end in EOS, except where truncation cut it off. An example is
  dropped whole: rows of all parts belong together.

  Args:
    task: a task or the name of one.
    split: a split that the task has.
    vocabulary: a tokenizer or what `vocabularies.load` takes.
    max_prompt_tokens: limit on prompts, special ids included; else the task's.
    max_response_tokens: limit on responses, EOS included; else the task's.
    max_teacher_prompt_tokens: limit on the teacher's prompts; else that on
      prompts.
    on_long: what befalls longer examples: 'error', 'truncate' or 'drop'.
    on_bad_example: what befalls bad ones (see `gathering.gather`): 'error' or
      'skip', which warns with their number by kind.
    limit: reads only so many rows.
    cache_dir: where tokens are kept; else $KDJAX_CACHE, else ~/.cache/kdjax.
    chat_template: asks through the tokenizer's chat template.
    teacher_prompts: templates of what the teacher reads in place of the
      student's prompt, which stands in each as '{input}'.

  Raises:
    FileNotFoundError: the source cannot be read.
    ValueError: no such split, a template without '{input}', an example that
      is bad or over the limits, or no example.
  """
  if on_long not in ('error', 'truncate', 'drop'):
    raise ValueError(f'on_long={on_long!r}: expected error, truncate or drop')
  if on_bad_example not in gathering.CHOICES:
    raise ValueError(
      f'on_bad_example={on_bad_example!r}: expected error or skip'
    )
  if limit is not None and limit < 1:
    raise ValueError(f'limit={limit}: expected at least 1, or None for all')
  for template in teacher_prompts:
    if _INPUT not in template:
      raise ValueError(
        f'teacher_prompts: {template!r} has no {_INPUT}, which stands for the '
        'prompt: add it'
      )
  task = tasks.get(task) if isinstance(task, str) else task
  if isinstance(vocabulary, str):
    vocabulary = vocabularies.load(vocabulary)
  task.check_split(split)
  wanted = _Wanted(
    task,
    split,
    vocabulary,
    limit,
    chat_template,
    tuple(teacher_prompts),
    on_bad_example,
  )
  prompt = max_prompt_tokens or task.max_prompt_tokens
  limits = {
    'prompt': prompt,
    'response': max_response_tokens or task.max_response_tokens,
    'teacher_prompt': max_teacher_prompt_tokens or prompt,
  }
  tails = [wanted.tail(each) for each in wanted.templates]
  found = _cached(wanted, cache_dir)
  if found.left_out:
    faults.warn(f'{task.name}/{split}: left out {found.left_out}')
  return limits_lib.fit(found, limits, on_long, tails)


@dataclasses.dataclass(frozen=True)
class _Wanted:
  """What is to be tokenised, and how; see `load`."""

  task: tasks.Task
  split: str
  vocabulary: vocabularies.Vocabulary
  limit: int | None
  chat_template: bool
  teacher_prompts: tuple[str, ...]
  on_bad_example: str

  @property
  def templates(self) -> tuple[str, ...]:
    """Those of all prompts, the student's first."""
    return (_INPUT, *self.teacher_prompts)

  def key(self) -> str:
    """Identifies the tokens, whatever their number: limits come after."""
    return json.dumps(
      [
        _CACHE_VERSION,
        tasks.digest(),
        self.task.name,
        self.task.args,
        self.task.source.identity(self.split),
        self.vocabulary.digest,
        self.limit,
        self.chat_template,
        self.teacher_prompts,
        self.on_bad_example,
      ],
      sort_keys=True,
      default=str,
    )

  def ask(self, inputs: str) -> str:
    """The whole text of a prompt."""
    return self.vocabulary.chat(inputs) if self.chat_template else inputs

  def tail(self, template: str) -> list[int]:
    """The ids at a prompt's end that truncation must keep."""
    after = self.ask(template.replace(_INPUT, _MARK)).rpartition(_MARK)[2]
    if self.chat_template:
      return self._continue(after)
    after = self.task.tail + after
    return self._continue(after) + list(self.vocabulary.prompt_suffix)

  def _continue(self, text: str) -> list[int]:
    """The ids of a text that follows another."""
    before = self.vocabulary.encode(_MARK)
    whole = self.vocabulary.encode(_MARK + text)
    if whole[: len(before)] == before:
      return whole[len(before) :]
    return self.vocabulary.encode(text)


def _cached(
  wanted: _Wanted, cache_dir: str | os.PathLike | None
) -> examples_lib.Examples:
  """Reads the tokens of a split, or makes and keeps them."""
  digest = hashlib.sha256(wanted.key().encode()).hexdigest()[:20]
  name = f'{wanted.task.name}-{wanted.split}-{digest}'
  directory = checksums.cache_root(cache_dir) / name
  if directory.exists():
    try:
      return tokens_lib.read(directory)
    except (ValueError, OSError) as error:
      logger.warning('%s. The tokens are made again', error)
      tokens_lib.remove(directory)
  made = _tokenise(wanted)
  try:
    tokens_lib.write(directory, made)
    return tokens_lib.read(directory)
  except (ValueError, OSError) as error:
    logger.warning('not cached, %s: %s', directory, error)
    return made


def _tokenise(wanted: _Wanted) -> examples_lib.Examples:
  """Runs the task's text through seqio."""
  task = wanted.task
  form = task.chat_format if wanted.chat_template else None
  texts, left_out = gathering.gather(
    task,
    wanted.split,
    form or task.format,
    limit=wanted.limit,
    on_bad_example=wanted.on_bad_example,
  )
  prompts = {
    f'prompt_{i}': [
      wanted.ask(template.replace(_INPUT, e.inputs)) for e in texts
    ]
    for i, template in enumerate(wanted.templates)
  }
  responses = {
    field: [getattr(e, field) for e in texts]
    for field in ('target', 'rejected')
    if getattr(texts[0], field) is not None
  }
  tokens = _encode(wanted, {**prompts, **responses}, responses)
  student, *teacher = (_surround(wanted, tokens[name]) for name in prompts)
  return examples_lib.Examples(
    task=wanted.task.name,
    split=wanted.split,
    vocabulary_fingerprint=wanted.vocabulary.fingerprint,
    ids=examples_lib.Texts.from_strings([e.id for e in texts]),
    inputs=examples_lib.Texts.from_strings(prompts['prompt_0']),
    references=examples_lib.References.from_lists(
      [e.references for e in texts]
    ),
    prompts=student,
    responses=tokens.get('target'),
    rejected=tokens.get('rejected'),
    teacher_prompts=tuple(teacher),
    left_out=left_out,
  )


def _surround(
  wanted: _Wanted, prompts: examples_lib.Ragged
) -> examples_lib.Ragged:
  """Adds the special ids of prompts; a chat template writes its own."""
  if wanted.chat_template:
    return prompts
  words = wanted.vocabulary
  return prompts.surround(words.prompt_prefix, words.prompt_suffix)


def _encode(
  wanted: _Wanted, columns: dict[str, list[str]], with_eos: Container[str]
) -> dict[str, examples_lib.Ragged]:
  """Tokens of every column, those of the columns `with_eos` with EOS."""
  short = {
    name: [text if len(text) <= _LONG else '' for text in texts]
    for name, texts in columns.items()
  }
  tokens = _run_seqio(wanted, short, with_eos)
  for name, texts in columns.items():
    eos = [wanted.vocabulary.eos_id] * (name in with_eos)
    long = {
      i: wanted.vocabulary.encode(text) + eos
      for i, text in enumerate(texts)
      if len(text) > _LONG
    }
    if long:
      tokens[name] = examples_lib.Ragged.from_rows(
        long.get(i, row) for i, row in enumerate(tokens[name])
      )
  return tokens


def _run_seqio(
  wanted: _Wanted, columns: dict[str, list[str]], with_eos: Container[str]
) -> dict[str, examples_lib.Ragged]:
  """`_encode` of texts that aren't long, through a seqio Task."""
  tf = in_tensorflow.load()
  import seqio

  def dataset_fn(split: str, shuffle_files: bool) -> Any:
    del split, shuffle_files  # The one split that is asked for; grain shuffles.
    return tf.data.Dataset.from_tensor_slices(columns).batch(_CHUNK)

  words = wanted.vocabulary.seqio()
  seqio_task = seqio.Task(
    wanted.task.name,
    source=seqio.FunctionDataSource(dataset_fn, splits=[wanted.split]),
    preprocessors=[
      functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
      seqio.preprocessors.append_eos,
    ],
    output_features={
      name: seqio.Feature(words, add_eos=name in with_eos, rank=2)
      for name in columns
    },
  )
  parts = list(seqio_task.get_dataset(split=wanted.split, shuffle=False))
  ragged = {}
  for name in columns:
    values = np.concatenate([p[name].values.numpy() for p in parts])
    lengths = [p[name].row_lengths().numpy() for p in parts]
    ragged[name] = examples_lib.Ragged.from_lengths(
      values.astype(np.int32), np.concatenate(lengths)
    )
  return ragged
