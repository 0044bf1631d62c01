"""Prompts to responses: who answers which row."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import constraints, models, objective, sampling, types
from kdjax import rows as rows_lib
from kdjax.models import api
from kdjax.step.settings import (
  MIXTURE,
  ROLLOUT,
  TASK,
  TEACHER,
  Metrics,
  Settings,
)


def rollout(
  settings: Settings,
  params: api.Params,
  teacher_params: api.Params | None,
  batch: types.Batch,
  step: jax.Array,
  key: jax.Array,
  rows: int,
) -> tuple[tuple[types.Response, ...], Metrics]:
  """Returns the responses of each of the objective's draws.

  [B, T] tokens and masks; with samples_per_prompt = G, [B * G, T] where the
  student is drawn from. Log-probabilities come along where a loss needs them.
  After these, for each task in `Objective.replayed`, all that the student says
  to it: `replay.recall` keeps that, and fills the rows that are replayed, which
  are empty so far.

  Args:
    settings: of the step.
    params: what the student samples with.
    teacher_params: the teacher's, where it samples.
    batch: prompts, and the responses that the data has.
    step: [] int32.
    key: of the run.
    rows: how many rows the student responds to (static).

  Raises:
    ValueError: the batch lacks responses or a task that a term draws from.
  """
  key = jax.random.fold_in(key, step)
  mixture_key = jax.random.fold_in(key, MIXTURE)
  goal, metrics, responses = settings.objective, {}, {}
  for i, task in enumerate(sorted(goal.tasks())):
    part = of_task(batch, task)
    # Tasks number their examples alike: each has random numbers of its own.
    task_key = key
    if i:
      task_key = jax.random.fold_in(jax.random.fold_in(key, TASK), i)
    answer = functools.partial(_answer, settings, part, task_key, mixture_key)
    responses[task] = dict(part.responses)
    missing = goal.sources(task) - set(part.responses)
    if 'teacher' in missing and settings.teacher_sampling is not None:
      found, more = _teach(settings, part, task_key, params, teacher_params)
      prefix = '/'.join(filter(None, ('rollout', task, 'teacher')))
      metrics |= {f'{prefix}/{name}': pair for name, pair in more.items()}
      responses[task]['teacher'] = found
    for source in goal.sampled(task) if rows else ():
      found = answer(source, params, teacher_params, rows)
      responses[task][source] = found
      prefix = '/'.join(filter(None, ('rollout', task, source)))
      metrics |= _lengths(prefix.replace('/student', ''), found, settings)
    if task in goal.replayed():
      responses[task]['replay'] = _nothing(part, settings.max_new_tokens)
  views = []
  for draw in goal.draws():
    size = of_task(batch, draw.task).prompt.tokens.shape[0]
    found = responses[draw.task]
    _check_sources(draw, found)
    if len(draw.mixture()) == 1:
      views.append(_whole(found[next(iter(draw.mixture()))], goal, draw))
      continue
    source = objective.assign(draw, step, mixture_key, size, rows)
    views.append(rows_lib.select(list(draw.mixture()), found, source))
  for task in goal.replayed():
    found = responses[task]
    said = found.get('student', found['replay'])
    views.append(types.Response(said.tokens, said.mask))
  return constraints.by_row(tuple(views)), metrics


def of_task(batch: types.Batch, task: str) -> types.Batch:
  """Returns the batch of a task; '' is the main one.

  Raises:
    ValueError: there is no such task.
  """
  if task and task not in batch.tasks:
    raise ValueError(
      f'a term reads the task {task!r}, but the batch has '
      f'{sorted(batch.tasks)} beside the main one'
    )
  return batch.tasks[task] if task else batch


def _teach(
  settings: Settings,
  batch: types.Batch,
  key: jax.Array,
  student_params: api.Params,
  params: api.Params,
) -> tuple[types.Response, Metrics]:
  """Samples the teacher's responses; the student may draft them."""
  prompt = batch.read_by_teacher[0]
  key = jax.random.fold_in(jax.random.fold_in(key, TEACHER), ROLLOUT)
  options = dict(settings.teacher_sampling)
  count, dtype = options.pop('draft_tokens', 0), options.get('dtype', '')
  student, student_params = _sampler(
    settings.student, student_params, {'dtype': dtype}
  )
  model, params = _sampler(settings.teacher, params, options)
  options = settings.generation(model, options)
  prompt, ids = constraints.by_row((prompt, row_ids(batch)))
  if not count:
    found = sampling.generate(
      model, params, prompt, key, row_ids=ids, **options
    )
    return found, {}
  for name in ('block', 'samples_per_prompt'):
    options.pop(name, None)
  found, accepted = sampling.speculate(
    model,
    params,
    student,
    student_params,
    prompt,
    key,
    draft_tokens=count,
    row_ids=ids,
    **options,
  )
  return found, {'accepted': accepted}


def _answer(
  settings: Settings,
  batch: types.Batch,
  key: jax.Array,
  mixture_key: jax.Array,
  source: str,
  params: api.Params,
  teacher_params: api.Params | None,
  rows: int,
) -> types.Response:
  """Samples the student's responses to `rows` of a batch's permutation.

  Where it answers several times, it answers all of them.
  """
  prompt, ids, options = batch.prompt, row_ids(batch), dict(settings.sampling)
  size, chosen = ids.size, None
  model, params = _sampler(settings.student, params, options)
  if source == 'greedy':
    options |= {'temperature': 0.0, 'samples_per_prompt': 1}
  elif settings.teacher_mix:
    model = models.mixture(settings.teacher, model, settings.teacher_mix)
    params = teacher_params, params
    prompt = batch.read_by_teacher[0], prompt
  if rows < size:
    _check_group(options, rows, size)
    chosen = objective.permutation(mixture_key, size)[:rows]
    prompt, ids = jax.tree.map(lambda x: x[chosen], (prompt, ids))
  prompt, ids = constraints.by_row((prompt, ids))
  sampled = sampling.generate(
    model,
    params,
    prompt,
    jax.random.fold_in(key, ROLLOUT),
    row_ids=ids,
    **settings.generation(model, options),
  )
  return sampled if chosen is None else rows_lib.scatter(sampled, chosen, size)


def _sampler(
  model: api.LanguageModel, params: api.Params, options: dict[str, Any]
) -> tuple[api.LanguageModel, api.Params]:
  """Returns what samples: cast and gathered, as `options` are freed of it."""
  if dtype := options.pop('dtype', ''):
    model, params = models.cast(model, params, dtype)
  if shardings := options.pop('gather', None):
    params = jax.lax.with_sharding_constraint(params, shardings)
  return model, params


def row_ids(batch: types.Batch) -> jax.Array:
  """Returns what selects the rows' random numbers, [B]."""
  if batch.example_id is None:
    return jnp.arange(batch.prompt.tokens.shape[0])
  return batch.example_id


def _nothing(batch: types.Batch, length: int) -> types.Response:
  blank = jnp.zeros((batch.prompt.tokens.shape[0], length), jnp.int32)
  return types.Response(blank, blank > 0)


def _check_group(options: Mapping[str, Any], rows: int, size: int) -> None:
  if options.get('samples_per_prompt', 1) > 1:
    raise ValueError(
      f'samples_per_prompt={options["samples_per_prompt"]}, but the student '
      f'answers {rows} of {size} rows: draw from the student alone'
    )


def _whole(
  response: types.Response, goal: objective.Objective, draw: objective.Draw
) -> types.Response:
  """A source's responses; the log-probabilities only where they are read.

  Raises:
    ValueError: the teacher's are read, and the batch has none.
  """
  needs, logprobs, teacher = goal.needs(draw), None, None
  if 'samples' in needs and draw.sampled == 'student':
    logprobs = response.sampling_logprobs
  if 'top_k' in needs:
    teacher = response.teacher
    if teacher is None:
      raise ValueError(
        'terms compare with the log-probabilities that a cache holds of the '
        f"teacher, but the batch's responses of {draw.label!r} have none"
      )
  return types.Response(
    response.tokens, response.mask, logprobs, teacher=teacher
  )


def _check_sources(
  draw: objective.Draw, responses: Mapping[str, types.Response]
) -> None:
  missing = draw.sources() - set(responses)
  if len(draw.mixture()) > 1:
    missing.discard(draw.sampled)  # none at this step
  if missing:
    raise ValueError(
      f'a term draws from {sorted(missing)}, but there are responses only '
      f"from {sorted(responses)}; the student's need rows > 0"
    )


def _lengths(
  name: str, response: types.Response, settings: Settings
) -> Metrics:
  rows = jnp.sum(jnp.any(response.mask, -1))
  return {
    f'{name}/length': (jnp.sum(response.mask), rows),
    f'{name}/eos_fraction': (jnp.sum(ended(response, settings)), rows),
  }


def ended(response: types.Response, settings: Settings) -> jax.Array:
  """Returns which responses hold an end-of-sequence token, [R] bool."""
  eos = jnp.atleast_1d(jnp.asarray(settings.eos_ids))
  return jnp.any(jnp.isin(response.tokens, eos) & response.mask, -1)
