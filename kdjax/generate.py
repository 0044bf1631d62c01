"""`--mode=generate`: one model's responses to a split, as a data set."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kdjax import build, data, distributed, metrics, sampling, types
from kdjax.config import Config
from kdjax.data import responses
from kdjax.models import api
from kdjax.run import Run

logger = logging.getLogger(__name__)


def generate(config: Config, workdir: str) -> None:
  """Writes responses shard by shard; the same call goes on where it stopped.

  A training config names the workdir in `task.teacher_responses`.

  Raises:
    ValueError: the workdir holds responses that were made otherwise.
  """
  c = config.generate
  drafts = ('student',) if c.draft_tokens else ()
  run = build.build(config, wanted=(c.model, *drafts))
  model, params = run.teacher, {'model': run.teacher_params}
  if c.model == 'student':
    model, params = run.student, {'model': run.initial_params()}
  if drafts:
    params['draft'] = run.initial_params()
  examples = run.examples(c.split)
  writer = responses.Writer(
    workdir,
    examples,
    model=getattr(config, c.model).path or 'from its config',
    sampling=_manifest(config),
    num_shards=-(-len(examples) // c.shard_size),
  )
  pending = writer.pending()
  logger.info('%d shards to write into %s', len(pending), workdir)
  respond = _responder(run, model)
  with jax.set_mesh(run.mesh), metrics.progress_bar(len(pending)) as bar:
    for shard, rows in pending:
      tokens = _respond(run, respond, params, examples, rows)
      if distributed.leads():
        texts = [run.vocabulary.decode(row) for row in tokens]
        writer.write(shard, tokens, texts)
      bar.update()


def _manifest(config: Config) -> dict[str, Any]:
  """Returns what decides over the responses, beside model and prompts."""
  settings = dataclasses.asdict(config.generate)
  # The keys of a row's random numbers don't depend on its batch or its shard.
  for name in ('model', 'split', 'batch_size', 'shard_size'):
    del settings[name]
  # Which draft it is changes samples, though not their distribution.
  draft = config.student.path if config.generate.draft_tokens else ''
  return {
    **settings,
    'draft': draft,
    'seed': config.seed,
    'teacher_prompts': list(config.task.teacher_prompts),
    'max_new_tokens': config.task.max_response_tokens,
  }


def _responder(run: Run, model: api.LanguageModel) -> Callable[..., Any]:
  """Returns the compiled (params, prompt, row_ids) -> (tokens, mask).

  Compiled as a whole, so that log-probabilities, which nobody reads, aren't
  computed: 6% of the time at a vocabulary of 50,000.
  """
  c = run.config.generate
  length = run.config.task.max_response_tokens

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
      return found.tokens, found.mask
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
    return found.tokens, found.mask

  return respond


def _respond(
  run: Run,
  respond: Callable[..., Any],
  params: dict[str, api.Params],
  examples: data.Examples,
  rows: np.ndarray,
) -> list[Sequence[int]]:
  """Returns the responses to examples `rows`, which also select their keys."""
  c = run.config
  asked = examples.take(rows)
  theirs = c.generate.model == 'teacher' and asked.teacher_prompts
  lengths = (asked.teacher_prompts[0] if theirs else asked.prompts).lengths
  # Alike ones together, the longest first: what needs most memory fails early.
  order = np.argsort(-lengths, kind='stable')
  said = {}
  for batch, valid in run.batches(asked.take(order), c.generate.batch_size):
    prompt = batch.teacher_prompts[0] if theirs else batch.prompt
    prompt = _trim(prompt, left=c.task.prompt_padding == 'left')
    numbers = order[batch.example_id]
    found = respond(
      params, *run.place((prompt, rows[numbers].astype(np.int32)))
    )
    tokens, mask = distributed.fetch(found)
    for i in range(valid):
      said[numbers[i]] = tokens[i][mask[i]].tolist()
  return [said[i] for i in range(len(rows))]


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
