"""`--mode=generate`: one model's responses to a split, as a data set."""

import dataclasses
import logging
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import (
  build,
  data,
  distributed,
  feed,
  identity,
  losses,
  metrics,
  sampling,
  types,
  workdirs,
)
from kdjax.config import Config
from kdjax.data import responses, vocabularies
from kdjax.models import api
from kdjax.run import Run

logger = logging.getLogger(__name__)


def generate(config: Config, workdir: str) -> None:
  """Writes responses shard by shard; the same call goes on where it stopped.

  A training config names the workdir in `task.teacher_responses`.

  Raises:
    OSError: the workdir can't be written; names the file.
    ValueError: the workdir holds responses that were made otherwise, another
      process writes there, or `generate.top_logprobs` is above the vocabulary.
  """
  _check_top(config)
  with workdirs.locked(workdir):
    _generate(config, workdir)


def _generate(config: Config, workdir: str) -> None:
  c = config.generate
  drafts = ('student',) if c.draft_tokens else ()
  run = build.build(config, wanted=(c.model, *drafts))
  model, params = run.teacher, {'model': run.teacher_params}
  if c.model == 'student':
    model, params = run.student, {'model': run.initial_params()}
  if drafts:
    params['draft'] = run.initial_params()
  examples = run.examples(c.split)
  shards = -(-len(examples) // c.shard_size)
  # One process writes, and says to the others what is to be made.
  leads = distributed.leads()
  writer = _writer(run, examples, workdir, shards) if leads else None
  todo = dict(writer.pending()) if writer else {}
  count = distributed.first(len(todo))
  logger.info('%d shards to write into %s', count, workdir)
  respond = _responder(run, model)
  with jax.set_mesh(run.mesh), metrics.progress_bar(count) as bar:
    for shard, rows in enumerate(responses.parts(len(examples), shards)):
      if not distributed.first(int(shard in todo)):
        continue
      said = _respond(run, respond, params, examples, rows)
      if writer:
        texts = [run.vocabulary.decode(each.tokens) for each in said]
        top = [each.top for each in said] if c.top_logprobs else []
        writer.write(shard, [each.tokens for each in said], texts, top)
      bar.update()
  if writer and c.top_logprobs:
    logger.info(
      'captured mass %.4f with k=%d', writer.captured(), c.top_logprobs
    )


def _check_top(c: Config) -> None:
  size, k = vocabularies.load(c.task.vocabulary).size, c.generate.top_logprobs
  if k > size:
    raise ValueError(
      f'generate.top_logprobs={k}, but the tokenizer {c.task.vocabulary!r} has '
      f'{size} tokens: set it to that for all of them, or to 8 or so'
    )


def _writer(
  run: Run, examples: data.Examples, workdir: str, shards: int
) -> responses.Writer:
  """Begins to write, by all that decides over the responses."""
  c = run.config
  role = c.generate.model
  settings = dataclasses.asdict(c.generate)
  # The keys of a row's random numbers don't depend on its batch or its shard.
  for name in ('model', 'split', 'batch_size', 'shard_size', 'top_logprobs'):
    del settings[name]
  if c.generate.draft_tokens:
    # Which draft it is changes samples, though not their distribution.
    settings['draft'] = _identity(run, 'student')
  settings |= {
    'seed': c.seed,
    'max_new_tokens': c.task.max_response_tokens,
  }
  return responses.Writer(
    workdir,
    examples,
    model=_identity(run, role),
    sampling=settings,
    vocabulary_size=run.vocabulary.size,
    num_shards=shards,
    top_logprobs=c.generate.top_logprobs,
    about={
      'model': getattr(c, role).path or 'from its config',
      **feed.about(c.task, run.task, c.generate.split),
    },
  )


def _identity(run: Run, role: str) -> dict[str, Any]:
  return {
    **identity.model(run.config, role, run.vocabulary),
    'numerics': identity.numerics(getattr(run.config, role)),
  }


def _responder(run: Run, model: api.LanguageModel) -> Callable[..., Any]:
  """Returns the compiled (params, prompt, row_ids) -> a Response.

  Compiled as a whole, so that the samples' log-probabilities, which nobody
  reads, aren't computed: 6% of the time at a vocabulary of 50,000.
  """
  c = run.config.generate
  length = run.config.task.max_response_tokens

  def answer(params, prompt, found):
    top = None
    if c.top_logprobs:
      # What a step compares with, at temperature 1 however it was sampled.
      hidden = model.hidden_states(params['model'], prompt, found.tokens)
      top = losses.chunked_top_k(
        hidden,
        model.output_head(params['model']).first(run.vocabulary.size),
        c.top_logprobs,
        mask=found.mask,
        batch_axes=types.BATCH_AXES,
      )
    return types.Response(found.tokens, found.mask, teacher=top)

  @jax.jit
  def respond(params, prompt, row_ids):
    given = model, params['model'], prompt
    if c.beams > 1:
      found, _ = sampling.beam_search(
        *given,
        beams=c.beams,
        length_penalty=c.length_penalty,
        max_new_tokens=length,
      )
      return answer(params, prompt, found)
    settings = {
      'temperature': c.temperature,
      'top_k': c.top_k,
      'top_p': c.top_p,
      'row_ids': row_ids,
      'max_new_tokens': length,
    }
    key = jax.random.key(run.config.seed)
    if c.draft_tokens:
      found, _ = sampling.speculate(
        *given[:2],
        run.student,
        params['draft'],
        prompt,
        key,
        draft_tokens=c.draft_tokens,
        **settings,
      )
    else:
      found = sampling.generate(*given, key, **settings)
    return answer(params, prompt, found)

  return respond


class _Said(NamedTuple):
  """One response.

  Attributes:
    tokens: [length], through the end-of-sequence token.
    top: the likeliest at each of them, or None.
  """

  tokens: np.ndarray
  top: types.TopK | None


def _respond(
  run: Run,
  respond: Callable[..., types.Response],
  params: dict[str, api.Params],
  examples: data.Examples,
  rows: np.ndarray,
) -> list[_Said]:
  """Returns the responses to examples `rows`, which also select their keys."""
  c = run.config
  asked = examples.take(rows)
  lengths = responses.read_by(c.generate.model, asked).lengths
  # Alike ones together, the longest first: what needs most memory fails early.
  order = np.argsort(-lengths, kind='stable')
  said = {}
  for batch, valid in run.batches(asked.take(order), c.generate.batch_size):
    prompt = batch.prompt
    if c.generate.model == 'teacher':
      prompt = batch.read_by_teacher[0]
    prompt = _trim(prompt, left=c.task.prompt_padding == 'left')
    numbers = order[batch.example_id]
    found = respond(
      params, *run.place((prompt, rows[numbers].astype(np.int32)))
    )
    found = distributed.fetch(found)
    for i in range(valid):
      said[numbers[i]] = _said(jax.tree.map(operator.itemgetter(i), found))
  return [said[i] for i in range(len(rows))]


def _said(row: types.Response) -> _Said:
  kept = operator.itemgetter(row.mask)
  return _Said(kept(row.tokens), jax.tree.map(kept, row.teacher))


def _trim(prompt: types.Prompt, left: bool) -> types.Prompt:
  """Halves the width of a batch whose prompts are all that short.

  Every width is compiled for. Two of them cost seconds and save up to half of
  what reading the prompts takes; four cost a tiny model more than they save.

  >>> mask = np.arange(8) < np.array([[1], [3]])
  >>> _trim(types.Prompt(np.zeros((2, 8)), mask), left=False).mask.shape
  (2, 4)
  """
  width = prompt.mask.shape[1]
  half = math.ceil(width / 2)
  if prompt.mask.sum(axis=1).max() > half:
    return prompt
  columns = slice(width - half, None) if left else slice(half)
  return types.Prompt(prompt.tokens[:, columns], prompt.mask[:, columns])
