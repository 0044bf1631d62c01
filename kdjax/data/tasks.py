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

from kdjax import values
from kdjax.data import prompts, sources
from kdjax.data.faults import as_list, as_text, text, texts

SPLITS = ('train', 'validation', 'test')


class Example(NamedTuple):
  """One example as text.

  Attributes:
    id: its name, unique within the split.
    inputs: the prompt.
    target: the gold response, or None in unlabelled data.
    references: all acceptable responses.
    rejected: a response that `target` is preferred to, or None.
  """

  id: str
  inputs: str
  target: str | None
  references: tuple[str, ...] = ()
  rejected: str | None = None


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
    prompted: whether an empty prompt is a fault; not where texts are all.
    gives: which responses examples hold: 'data', gold ones; 'rejected'.
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
  prompted: bool = True
  gives: tuple[str, ...] = ('data',)
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
    ValueError: there is no such task, or its arguments are wrong; says all.
  """
  if name not in _BUILDERS:
    raise ValueError(f'no task {name!r}; there are {", ".join(names())}')
  if found := values.problems(_BUILDERS[name], args):
    raise ValueError(f'task {name!r}: {"; ".join(found)}')
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
def xsum(prefix: str = 'summarize: ', data_dir: str | None = None) -> Task:
  """BBC articles to one sentence (Narayan et al., 2018), prompted as T5.

  Here and below, `prefix=''` asks with the text alone.
  """
  source = _hub('EdinburghNLP/xsum', data_dir, revision='refs/convert/parquet')
  return Task(
    name='xsum',
    source=source,
    format=_one(
      lambda r: prefix + text(r, 'document'), lambda r: text(r, 'summary'), 'id'
    ),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=1024,
    max_response_tokens=64,
  )


@register
def cnn_dailymail(
  prefix: str = 'summarize: ', data_dir: str | None = None
) -> Task:
  """News articles to their highlights (version 3.0.0), prompted as T5."""
  return Task(
    name='cnn_dailymail',
    source=_hub('abisee/cnn_dailymail', data_dir, config='3.0.0'),
    format=_one(
      lambda r: prefix + text(r, 'article'),
      lambda r: text(r, 'highlights'),
      'id',
    ),
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=1024,
    max_response_tokens=128,
  )


def _translation(
  name: str, source: sources.Source, here: str, there: str, prefix: str
) -> Task:
  """Rows {'translation': {code: text}}."""
  return Task(
    name=name,
    source=source,
    format=_one(
      lambda r: prefix + text(r['translation'], here),
      lambda r: text(r['translation'], there),
      None,
    ),
    metrics=('bleu', 'chrf'),
    max_prompt_tokens=128,
    max_response_tokens=128,
  )


@register
def wmt14_ende(
  prefix: str = 'translate English to German: ', data_dir: str | None = None
) -> Task:
  """English to German (WMT 2014; newstest2014), prompted as T5."""
  source = _hub('wmt/wmt14', data_dir, config='de-en')
  return _translation('wmt14_ende', source, 'en', 'de', prefix)


@register
def wmt16_enro(
  prefix: str = 'translate English to Romanian: ', data_dir: str | None = None
) -> Task:
  """English to Romanian (WMT 2016; newstest2016), prompted as T5."""
  source = _hub('wmt/wmt16', data_dir, config='ro-en')
  return _translation('wmt16_enro', source, 'en', 'ro', prefix)


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
    inputs = f'{opening}Q: {text(row, "question")}\nA:'
    answer = text(row, 'answer')
    yield Example(str(index), inputs, f' {respond(answer)}', (answer,))

  def chat(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    answer = text(row, 'answer')
    target = prompts.gsm8k_solution(answer)
    yield Example(str(index), text(row, 'question'), target, (answer,))

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

  def asked(row: Mapping[str, Any]) -> tuple[str, str]:
    # Most have no context, which copies of the data write as null, too.
    context = row['context'] is not None and text(row, 'context', empty=True)
    return text(row, 'instruction'), context or ''

  source = sources.Divided(
    _hub('databricks/databricks-dolly-15k', data_dir, ('train',)),
    key=lambda r: f'{r["instruction"]}\n{r["context"]}',
    sizes=(('test', 500), ('validation', 1000)),
  )
  return Task(
    name='dolly',
    source=source,
    format=_one(
      lambda r: prompts.alpaca(*asked(r)), lambda r: text(r, 'response'), None
    ),
    chat_format=_one(
      lambda r: '\n\n'.join(asked(r)).strip(),
      lambda r: text(r, 'response'),
      None,
    ),
    tail=prompts.ALPACA_TAIL,
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=256,
    max_response_tokens=256,
  )


@register
def dailydialog(
  context: int = 1, prefix: str = '', data_dir: str | None = None
) -> Task:
  """Utterances of daily conversation to the next one (Li et al., 2017).

  Args:
    context: how many utterances are asked with, one a line; with 1, examples
      are the pairs of adjacent utterances.
    prefix: of the prompts.
    data_dir: a local copy.
  """
  if context < 1:
    raise ValueError(f'dailydialog: context={context}, expected at least 1')

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    said = [each.strip() for each in texts(row, 'dialog', empty=True)]
    for turn in range(1, len(said)):
      inputs = prefix + '\n'.join(said[max(0, turn - context) : turn])
      yield Example(f'{index}/{turn}', inputs, said[turn], (said[turn],))

  return Task(
    name='dailydialog',
    source=_hub(
      'li2017dailydialog/daily_dialog',
      data_dir,
      revision='refs/convert/parquet',
    ),
    format=examples,
    metrics=('bleu', 'distinct1', 'distinct2'),
    max_prompt_tokens=128,
    max_response_tokens=64,
  )


@register
def dart(prefix: str = '', data_dir: str | None = None) -> Task:
  """Triples to a sentence (Nan et al., 2021), linearised as in prefix-tuning.

  For training, every sentence of a set of triples is an example, as is usual;
  for validation and testing every set is, with all its sentences as references.
  """

  def triple(value: Any, where: str) -> str:
    parts = as_list(value, where)
    return ' : '.join(as_text(part, where, empty=True) for part in parts)

  def inputs(row: Mapping[str, Any]) -> str:
    where = "the column 'tripleset'"
    triples = as_list(row['tripleset'], where)
    return prefix + ' | '.join(triple(each, where) for each in triples)

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    gold = texts(row['annotations'], 'text')
    yield Example(str(index), inputs(row), gold[0], gold)

  def one_text_each(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
      {**row, 'annotations': {'text': [each]}}
      for each in texts(row['annotations'], 'text')
    ]

  source = _hub('Yale-LILY/dart', data_dir, revision='refs/convert/parquet')
  return Task(
    name='dart',
    source=sources.Reworked(source, one_text_each),
    format=examples,
    metrics=('bleu', 'ter'),
    max_prompt_tokens=256,
    max_response_tokens=128,
  )


@register
def hh_rlhf(data_dir: str | None = None) -> Task:
  """Conversations with a better and a worse last answer (Bai et al., 2022).

  The few rows whose two conversations part before the last answer are left out.
  """
  tail = '\n\nAssistant:'

  def examples(row: Mapping[str, Any], index: int) -> Iterable[Example]:
    asked, _, chosen = text(row, 'chosen').rpartition(tail)
    other, _, rejected = text(row, 'rejected').rpartition(tail)
    if asked == other:
      references = (chosen.strip(),)
      yield Example(str(index), asked + tail, chosen, references, rejected)

  return Task(
    name='hh_rlhf',
    source=_hub('Anthropic/hh-rlhf', data_dir, ('train', 'test')),
    format=examples,
    tail=tail,
    metrics=('rouge1', 'rouge2', 'rougeL'),
    max_prompt_tokens=512,
    max_response_tokens=256,
    gives=('data', 'rejected'),
  )


def digest() -> str:
  """sha256 of the text of all modules with tasks, and of the prompts'.

  Caches are keyed by it: whoever edits a prompt gets fresh data.
  """
  modules = {inspect.getmodule(each) for each in (*_BUILDERS.values(), Task)}
  modules = {each for each in modules if getattr(each, '__file__', None)}
  code = ''.join(
    sorted(inspect.getsource(each) for each in modules | {prompts})
  )
  return hashlib.sha256(code.encode()).hexdigest()
