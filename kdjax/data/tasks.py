"""What each task is: its source, prompts, references and metrics.

A task turns rows into `Example`s of text; `loading.load` tokenises them through
a seqio Task. To add one, write a function that returns a `Task` and put
`@register` on it: its parameters become the task's arguments.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.data import prompts, sources

SPLITS = ('train', 'validation', 'test')


class Example(NamedTuple):
  """One example as text.

  Attributes:
    id: its name, unique within the split.
    inputs: the prompt.
    target: the gold response, or None in unlabelled data.
    references: all acceptable responses.
  """

  id: str
  inputs: str
  target: str | None
  references: tuple[str, ...] = ()


Format = Callable[[Mapping[str, Any], int], Iterable[Example]]


@dataclasses.dataclass(frozen=True)
class Task:
  """A task.

  Attributes:
    name: by which `get` knows it.
    source: where rows come from.
    format: a row and its index to the examples that it gives.
    metrics: names of the metrics it is judged by.
    max_prompt_tokens: the usual limit on prompts.
    max_response_tokens: the usual limit on responses.
    tail: end of every prompt, which survives truncation.
    chat_format: like `format`, for prompts that go through a chat template.
    args: what `get` was given.
  """

  name: str
  source: sources.Source
  format: Format
  metrics: tuple[str, ...]
  max_prompt_tokens: int
  max_response_tokens: int
  tail: str = ''
  chat_format: Format | None = None
  args: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def check_split(self, split: str) -> None:
    """Raises ValueError if the task has no such split."""
    if self.source.splits and split not in self.source.splits:
      raise ValueError(
        f'the task {self.name!r} has no split {split!r}, only '
        f'{", ".join(self.source.splits)}'
      )


_BUILDERS: dict[str, Callable[..., Task]] = {}


def register(builder: Callable[..., Task]) -> Callable[..., Task]:
  """Makes `get` know a builder under the name of the function."""
  _BUILDERS[builder.__name__] = builder
  return builder


def names() -> tuple[str, ...]:
  """The names that `get` knows."""
  return tuple(sorted(_BUILDERS))


def get(name: str, **args) -> Task:
  """Returns the task `name` with the given arguments.

  Raises:
    ValueError: there is no such task, or it takes no such argument.
  """
  if name not in _BUILDERS:
    raise ValueError(f'no task {name!r}; there are {", ".join(names())}')
  signature = inspect.signature(_BUILDERS[name])
  try:
    signature.bind(**args)
  except TypeError as error:
    raise ValueError(
      f'task {name!r}: {error}. It takes {signature}'.replace(' -> ', ' to ')
    ) from error
  return dataclasses.replace(_BUILDERS[name](**args), args=dict(args))


def _hub(
  repository: str,
  data_dir: str | None,
  splits: tuple[str, ...] = SPLITS,
  **options,
) -> sources.Source:
  """The hub's data set, or the copy of it in `data_dir`."""
  if data_dir:
    return sources.folder(data_dir, splits)
  return sources.Hub(repository, splits, **options)


def _one(inputs: Callable, target: Callable, id_field: str | None) -> Format:
  """The format of rows that give one example with one reference."""

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    name = row.get(id_field) if id_field else None
    gold = target(row)
    name = str(index if name is None else name)
    yield Example(name, inputs(row), gold, (gold,))

  return examples


@register
def debsum(prefix: str = '') -> Task:
  """Debian package descriptions to their one-line synopsis (embedded)."""
  ask = 'Write the one-line synopsis of this Debian package.\n\n'
  return Task(
    name='debsum',
    source=sources.embedded('debsum'),
    format=_one(_package(prefix), lambda r: r['summary'], 'id'),
    chat_format=_one(_package(ask), lambda r: r['summary'], 'id'),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=128,
    max_response_tokens=32,
  )


def _package(prefix: str) -> Callable[[Mapping[str, Any]], str]:
  return lambda row: f'{prefix}{row["id"]}: {row["document"]}'


@register
def debsum_windows(
  repeats: int = 1, first_words: int = 32, prefix: str = ''
) -> Task:
  """Copying: debsum's prompts, a short window of the document as target.

  A fresh model whose attention has first learned to copy learns to summarise
  many times faster. Windows have 8 to 24 words.

  Args:
    repeats: windows an example.
    first_words: windows lie within so many words, so that a truncated prompt
      still holds what is to be copied.
    prefix: of the prompts, as for `debsum`.
  """
  inputs = _package(prefix)

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    words = row['document'].split()[:first_words]
    for repeat in range(repeats):
      rng = np.random.default_rng([index, repeat])
      length = min(int(rng.integers(8, 25)), len(words))
      start = int(rng.integers(0, len(words) - length + 1))
      window = ' '.join(words[start : start + length])
      yield Example(f'{row["id"]}/{repeat}', inputs(row), window, (window,))

  return Task(
    name='debsum_windows',
    source=sources.embedded('debsum'),
    format=examples,
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=128,
    max_response_tokens=64,
  )


@register
def g2p() -> Task:
  """Spelling to phonemes: CMU Pronouncing Dictionary (embedded)."""

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    sounds = tuple(row['pronunciations'])
    yield Example(row['word'], ' '.join(row['word']), sounds[0], sounds)

  return Task(
    name='g2p',
    source=sources.embedded('g2p'),
    format=examples,
    metrics=('exact_match', 'phoneme_error_rate'),
    max_prompt_tokens=36,
    max_response_tokens=36,
  )


@register
def xsum(data_dir: str | None = None) -> Task:
  """BBC articles to one sentence (Narayan et al., 2018), prompted as T5."""
  source = _hub('EdinburghNLP/xsum', data_dir, revision='refs/convert/parquet')
  return Task(
    name='xsum',
    source=source,
    format=_one(
      lambda r: f'summarize: {r["document"]}', lambda r: r['summary'], 'id'
    ),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=1024,
    max_response_tokens=64,
  )


@register
def cnn_dailymail(data_dir: str | None = None) -> Task:
  """News articles to their highlights (version 3.0.0), prompted as T5."""
  return Task(
    name='cnn_dailymail',
    source=_hub('abisee/cnn_dailymail', data_dir, config='3.0.0'),
    format=_one(
      lambda r: f'summarize: {r["article"]}',
      lambda r: r['highlights'],
      'id',
    ),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=1024,
    max_response_tokens=128,
  )


def _translation(
  name: str, source: sources.Source, languages: dict[str, str]
) -> Task:
  """Rows {'translation': {code: text}}, prompted as T5 was trained."""
  (here, from_name), (there, to_name) = languages.items()
  ask = f'translate {from_name} to {to_name}: '
  return Task(
    name=name,
    source=source,
    format=_one(
      lambda r: ask + r['translation'][here],
      lambda r: r['translation'][there],
      None,
    ),
    metrics=('bleu', 'chrf'),
    max_prompt_tokens=128,
    max_response_tokens=128,
  )


@register
def wmt14_ende(data_dir: str | None = None) -> Task:
  """English to German (WMT 2014; test set newstest2014)."""
  source = _hub('wmt/wmt14', data_dir, config='de-en')
  return _translation('wmt14_ende', source, {'en': 'English', 'de': 'German'})


@register
def wmt16_enro(data_dir: str | None = None) -> Task:
  """English to Romanian (WMT 2016; test set newstest2016)."""
  source = _hub('wmt/wmt16', data_dir, config='ro-en')
  return _translation('wmt16_enro', source, {'en': 'English', 'ro': 'Romanian'})


@register
def gsm8k(shots: int = 4, data_dir: str | None = None) -> Task:
  """Grade-school maths with reasoning (Cobbe et al., 2021).

  The prompt opens with the first `shots` of the exemplars of Wei et al. (2022,
  Chain-of-Thought Prompting), of which there are 4; GKD uses 4. Responses then
  end as the exemplars do, in 'The answer is N.'; without exemplars, and under a
  chat template, in the data set's own '#### N'.
  """
  exemplars = prompts.CHAIN_OF_THOUGHT
  if not 0 <= shots <= len(exemplars):
    raise ValueError(f'gsm8k: shots={shots}, expected 0 to {len(exemplars)}')
  opening = ''.join(f'Q: {q}\nA: {a}\n\n' for q, a in exemplars[:shots])
  respond = prompts.gsm8k_reasoning if shots else prompts.gsm8k_solution

  def plain(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    inputs = f'{opening}Q: {row["question"]}\nA:'
    target = f' {respond(row["answer"])}'
    yield Example(str(index), inputs, target, (row['answer'],))

  def chat(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    target = prompts.gsm8k_solution(row['answer'])
    yield Example(str(index), row['question'], target, (row['answer'],))

  return Task(
    name='gsm8k',
    source=_hub('openai/gsm8k', data_dir, ('train', 'test'), config='main'),
    format=plain,
    chat_format=chat,
    tail='\nA:',
    metrics=('gsm8k_accuracy_flexible',) if shots else ('gsm8k_accuracy',),
    max_prompt_tokens=1024 if shots else 512,
    max_response_tokens=320,
  )


@register
def dolly(data_dir: str | None = None) -> Task:
  """Instructions (databricks-dolly-15k) in MiniLLM's prompt.

  The hub holds one split; as in MiniLLM (Gu et al., 2024), 500 examples are for
  testing and 1,000 for validation, here chosen by a hash of the instruction.
  """
  source = sources.Divided(
    _hub('databricks/databricks-dolly-15k', data_dir, ('train',)),
    key=lambda r: f'{r["instruction"]}\n{r["context"]}',
    sizes=(('test', 500), ('validation', 1000)),
  )
  return Task(
    name='dolly',
    source=source,
    format=_one(prompts.alpaca, lambda r: r['response'], None),
    chat_format=_one(
      lambda r: f'{r["instruction"]}\n\n{r["context"]}'.strip(),
      lambda r: r['response'],
      None,
    ),
    tail=prompts.ALPACA_TAIL,
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=256,
    max_response_tokens=256,
  )


@register
def file(
  path: str,
  input: str,
  target: str | None = None,
  prefix: str = '',
  id: str | None = None,
  metrics: tuple[str, ...] = ('rouge1', 'rouge2', 'rougeL', 'exact_match'),
) -> Task:
  """A local jsonl, csv or parquet file.

  Args:
    path: the file; with '{split}' in it, one file a split.
    input: the column that holds the prompts.
    target: the column that holds the responses, or None if unlabelled. Where
      its values are lists, the first is the response and all are references.
    prefix: text before every prompt.
    id: the column that names the examples, else their numbers do.
    metrics: by which it is judged.
  """

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    missing = [c for c in (input, target, id) if c and row.get(c) is None]
    if missing:
      raise ValueError(
        f'row {index} of {path} has nothing in the column {missing[0]!r}; '
        f'its columns are {", ".join(map(str, row))}'
      )
    gold = () if target is None else row[target]
    gold = (gold,) if isinstance(gold, (str, int, float)) else gold
    gold = tuple(str(text) for text in gold)
    name = str(row[id] if id else index)
    first = gold[0] if gold else None
    yield Example(name, f'{prefix}{row[input]}', first, gold)

  return Task(
    name='file',
    source=sources.Files(path),
    format=examples,
    metrics=tuple(metrics),
    max_prompt_tokens=512,
    max_response_tokens=128,
  )


def digest() -> str:
  """sha256 of this module's and the prompts' text.

  Caches are keyed by it: whoever edits a prompt gets fresh data.
  """
  code = inspect.getsource(inspect.getmodule(Task)) + inspect.getsource(prompts)
  return hashlib.sha256(code.encode()).hexdigest()
