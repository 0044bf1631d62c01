"""Materialises a task: text through a seqio Task to ragged arrays, cached.

seqio says what a task is; grain (see `pipeline`) says in what order examples
come. Between the two, a split is tokenised once and kept on disk.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from kdjax.data import examples as examples_lib
from kdjax.data import tasks, vocabularies

logger = logging.getLogger(__name__)

# Part of every cache's key: change it with the layout or meaning of the files.
_CACHE_VERSION = 1
# Texts go through seqio so many at a time: four times as fast as one by one.
_CHUNK = 512
_MARK = 'kdjax-content'


def load(
  task: tasks.Task | str,
  split: str,
  vocabulary: vocabularies.Vocabulary | str,
  *,
  max_prompt_tokens: int | None = None,
  max_response_tokens: int | None = None,
  on_long: str = 'error',
  limit: int | None = None,
  cache_dir: str | os.PathLike | None = None,
  chat_template: bool = False,
) -> examples_lib.Examples:
  """Loads a split of a task.

  Responses end in EOS, except where truncation cut it off.

  Args:
    task: a task or the name of one.
    split: a split that the task has.
    vocabulary: a tokenizer or what `vocabularies.load` takes.
    max_prompt_tokens: limit on prompts, special ids included; else the task's.
    max_response_tokens: limit on responses, EOS included; else the task's.
    on_long: what befalls longer examples: 'error', 'truncate' or 'drop'.
    limit: reads only so many rows.
    cache_dir: where tokens are kept; else $KDJAX_CACHE, else ~/.cache/kdjax.
    chat_template: asks through the tokenizer's chat template.

  Raises:
    FileNotFoundError: the source cannot be read.
    ValueError: no such split, an example over the limits, or no example.
  """
  if on_long not in ('error', 'truncate', 'drop'):
    raise ValueError(f'on_long={on_long!r}: expected error, truncate or drop')
  if limit is not None and limit < 1:
    raise ValueError(f'limit={limit}: expected at least 1, or None for all')
  task = tasks.get(task) if isinstance(task, str) else task
  if isinstance(vocabulary, str):
    vocabulary = vocabularies.load(vocabulary)
  task.check_split(split)
  loaded = _cached(task, split, vocabulary, limit, cache_dir, chat_template)
  tail = _tail(task, vocabulary, chat_template)
  limits = (
    max_prompt_tokens or task.max_prompt_tokens,
    max_response_tokens or task.max_response_tokens,
  )
  return _fit(loaded, limits, on_long, tail)


def _cached(
  task: tasks.Task,
  split: str,
  vocabulary: vocabularies.Vocabulary,
  limit: int | None,
  cache_dir: str | os.PathLike | None,
  chat_template: bool,
) -> examples_lib.Examples:
  """All tokens of the split, whatever their number: limits come after."""
  root = cache_dir or os.environ.get('KDJAX_CACHE') or '~/.cache/kdjax'
  key = json.dumps(
    [
      _CACHE_VERSION,
      tasks.digest(),
      task.name,
      task.args,
      task.source.identity(split),
      vocabulary.digest,
      limit,
      chat_template,
    ],
    sort_keys=True,
    default=str,
  )
  digest = hashlib.sha256(key.encode()).hexdigest()[:20]
  directory = pathlib.Path(root).expanduser() / f'{task.name}-{split}-{digest}'
  if not directory.exists():
    made = _tokenise(task, split, vocabulary, limit, chat_template)
    try:
      examples_lib.write(directory, made)
    except OSError as error:
      logger.warning('not cached, %s: %s', directory, error)
      return made
  return examples_lib.read(directory)


def _tokenise(
  task: tasks.Task,
  split: str,
  vocabulary: vocabularies.Vocabulary,
  limit: int | None,
  chat_template: bool,
) -> examples_lib.Examples:
  """Runs the task's text through seqio."""
  form = task.chat_format if chat_template else None
  form = form or task.format
  rows = itertools.islice(task.source.rows(split), limit)
  texts = [e for i, row in enumerate(rows) for e in form(row, i)]
  if not texts:
    raise ValueError(
      f'the split {split!r} of the task {task.name!r} is empty: check what '
      f'its source holds ({task.source})'
    )
  if chat_template:
    texts = [e._replace(inputs=vocabulary.chat(e.inputs)) for e in texts]
  labelled = all(e.target is not None for e in texts)
  names = [e.id for e in texts]
  if len(set(names)) < len(names):
    names = [str(i) for i in range(len(names))]
  prompts, responses = _run_seqio(task, split, texts, vocabulary, labelled)
  if not chat_template:
    # A chat template writes its own.
    prompts = prompts.surround(
      vocabulary.prompt_prefix, vocabulary.prompt_suffix
    )
  return examples_lib.Examples(
    task=task.name,
    split=split,
    vocabulary_fingerprint=vocabulary.fingerprint,
    ids=examples_lib.Texts.from_strings(names),
    inputs=examples_lib.Texts.from_strings(e.inputs for e in texts),
    references=examples_lib.References.from_lists(
      [e.references for e in texts]
    ),
    prompts=prompts,
    responses=responses,
  )


def _run_seqio(
  task: tasks.Task,
  split: str,
  texts: list[tasks.Example],
  vocabulary: vocabularies.Vocabulary,
  labelled: bool,
) -> tuple[examples_lib.Ragged, examples_lib.Ragged | None]:
  """Tokens of prompts (bare) and responses (with EOS)."""
  tf = vocabularies.import_tensorflow()
  import seqio

  columns = {'inputs': [e.inputs for e in texts]}
  if labelled:
    columns['targets'] = [e.target for e in texts]

  def dataset_fn(split: str, shuffle_files: bool) -> Any:
    del split, shuffle_files  # The one split that is asked for; grain shuffles.
    return tf.data.Dataset.from_tensor_slices(columns).batch(_CHUNK)

  words = vocabulary.seqio()
  seqio_task = seqio.Task(
    task.name,
    source=seqio.FunctionDataSource(dataset_fn, splits=[split]),
    preprocessors=[
      functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
      seqio.preprocessors.append_eos,
    ],
    output_features={
      name: seqio.Feature(words, add_eos=name == 'targets', rank=2)
      for name in columns
    },
  )
  parts = list(seqio_task.get_dataset(split=split, shuffle=False))
  ragged = {}
  for name in columns:
    values = np.concatenate([p[name].values.numpy() for p in parts])
    lengths = [p[name].row_lengths().numpy() for p in parts]
    ragged[name] = examples_lib.Ragged.from_lengths(
      values.astype(np.int32), np.concatenate(lengths)
    )
  return ragged['inputs'], ragged.get('targets')


def _tail(
  task: tasks.Task, vocabulary: vocabularies.Vocabulary, chat_template: bool
) -> list[int]:
  """The ids at a prompt's end that truncation must keep."""
  if chat_template:
    after = vocabulary.chat(_MARK).rpartition(_MARK)[2]
    return vocabulary.encode(after)
  tail = vocabulary.encode(task.tail) if task.tail else []
  return tail + list(vocabulary.prompt_suffix)


def _fit(
  loaded: examples_lib.Examples,
  limits: tuple[int, int],
  on_long: str,
  tail: list[int],
) -> examples_lib.Examples:
  """Brings examples within the limits on prompts and responses."""
  parts = {'prompt': loaded.prompts, 'response': loaded.responses}
  long = np.zeros(len(loaded), bool)
  notes = []
  for (name, tokens), limit in zip(parts.items(), limits):
    over = (tokens.lengths > limit) if tokens is not None else None
    if over is not None and over.any():
      long |= over
      notes.append(
        f'{over.sum()} of {len(loaded)} {name}s are longer than '
        f'max_{name}_tokens={limit} (the longest has {tokens.lengths.max()})'
      )
  if not notes:
    return loaded
  what = f'{loaded.task}/{loaded.split}: ' + ' and '.join(notes)
  if on_long == 'error':
    raise ValueError(
      f"{what}. Raise the limit, or set on_long to 'truncate' or 'drop'"
    )
  logger.warning('%s: on_long=%s', what, on_long)
  if on_long == 'drop':
    if long.all():
      raise ValueError(f'{what}: none is left. Raise the limits')
    return loaded.take(np.flatnonzero(~long))
  if limits[0] <= len(tail):
    raise ValueError(
      f'max_prompt_tokens={limits[0]} leaves no room beside the '
      f'{len(tail)} tokens that end every prompt'
    )
  responses = loaded.responses
  if responses is not None:
    responses = responses.truncate(limits[1])
  prompts = _truncate_prompts(loaded.prompts, limits[0], tail)
  return dataclasses.replace(loaded, prompts=prompts, responses=responses)


def _truncate_prompts(
  prompts: examples_lib.Ragged, limit: int, tail: list[int]
) -> examples_lib.Ragged:
  """Cuts prompts in front of their tail: what asks for the response stays."""
  cut = prompts.truncate(limit)
  values = cut.values.copy()
  ends = cut.offsets[1:][prompts.lengths > limit]
  for i, token in enumerate(tail):
    values[ends - len(tail) + i] = token
  return examples_lib.Ragged(values, cut.offsets)
