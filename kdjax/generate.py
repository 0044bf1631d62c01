"""`--mode=generate`: one model's responses to a split, as a data set."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from kdjax import build, data, metrics, sampling
from kdjax.config import Config
from kdjax.data import responses
from kdjax.models import api

logger = logging.getLogger(__name__)


def generate(config: Config, workdir: str) -> None:
  """Writes responses shard by shard; the same call goes on where it stopped.

  A training config names the workdir in `task.teacher_responses`.

  Raises:
    ValueError: the workdir holds responses that were made otherwise.
  """
  c = config.generate
  run = build.build(config, wanted=(c.model,))
  model, params = run.teacher, run.teacher_params
  if c.model == 'student':
    model, params = run.student, run.initial_params()
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
  with jax.set_mesh(run.mesh), metrics.progress_bar(len(pending)) as bar:
    for shard, rows in pending:
      tokens = _respond(run, model, params, examples.take(rows), rows)
      texts = [run.vocabulary.decode(row) for row in tokens]
      writer.write(shard, tokens, texts)
      bar.update()


def _manifest(config: Config) -> dict[str, Any]:
  """Returns what decides over the responses, beside model and prompts."""
  settings = dataclasses.asdict(config.generate)
  # The keys of a row's random numbers don't depend on its batch or its shard.
  for name in ('model', 'split', 'batch_size', 'shard_size'):
    del settings[name]
  return {
    **settings,
    'seed': config.seed,
    'teacher_prompts': list(config.task.teacher_prompts),
    'max_new_tokens': config.task.max_response_tokens,
  }


def _respond(
  run: build.Run,
  model: api.LanguageModel,
  params: api.Params,
  examples: data.Examples,
  rows: np.ndarray,
) -> list[Sequence[int]]:
  """Returns the responses to some examples; `rows` select their keys."""
  c = run.config.generate
  settings = {'max_new_tokens': run.config.task.max_response_tokens}
  said = []
  for batch, valid in run.batches(examples, c.batch_size):
    prompt = batch.prompt
    if c.model == 'teacher' and batch.teacher_prompts:
      prompt = batch.teacher_prompts[0]
    prompt = run.place(prompt)
    if c.beams > 1:
      found, _ = sampling.beam_search(
        model,
        params,
        prompt,
        beams=c.beams,
        length_penalty=c.length_penalty,
        **settings,
      )
    else:
      found = sampling.generate(
        model,
        params,
        prompt,
        jax.random.key(run.config.seed),
        temperature=c.temperature,
        top_k=c.top_k,
        top_p=c.top_p,
        row_ids=run.place(rows[batch.example_id].astype(np.int32)),
        **settings,
      )
    tokens, mask = jax.device_get((found.tokens, found.mask))
    said += [tokens[i][mask[i]].tolist() for i in range(valid)]
  return said
