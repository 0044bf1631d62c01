"""The two halves of a step, compiled for chips that aren't here."""

import dataclasses
import functools
import logging
import math
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import step, types
from kdjax.plan import chips, counting, formula
from kdjax.plan.job import Job, make

logger = logging.getLogger(__name__)

# Whose compiler is asked for what doesn't fit the chips that were meant: it
# has the most memory.
_ROOMY = 'v5p'


@dataclasses.dataclass(frozen=True)
class Program:
  """What is known of a compiled program; bytes and FLOPs are one chip's.

  Attributes:
    name: 'rollout' or 'update'.
    held: bytes of what is there all the time, by what it is; see `held`.
    caches: keys and values of the sampler, at most.
    temporaries: what else is there while it runs, results included.
    code: the program itself.
    cost: as counted, or None where it was too large to be compiled at all.
    formula: FLOPs by `formula`, over all chips divided by their number.
    compiled_for: the chip whose compiler was asked.
    seconds: that it took.
  """

  name: str
  held: dict[str, float]
  caches: float
  temporaries: float
  code: float
  cost: counting.Cost | None
  formula: float
  compiled_for: str
  seconds: float

  @property
  def peak(self) -> float:
    held = sum(self.held.values())
    return held + self.caches + self.temporaries + self.code


def compile_all(job: Job, chip: chips.Chip) -> list[Program]:
  """Returns a step's rollout, where it has one, and its update.

  Raises:
    ValueError: the models, responses and rewards don't fit the terms.
  """
  found = []
  for name, lower in (('rollout', lower_rollout), ('update', lower_update)):
    if name == 'update' or _samples(job):
      found.append(_compile(job, chip, name, lower))
  return found


def lower_rollout(job: Job) -> Any:
  """Returns the lowered rollout."""
  run = jax.jit(
    functools.partial(step.rollout, job.settings), static_argnames='rows'
  )
  return run.lower(
    step.policy(job.state),
    job.run.frozen.get('teacher') if job.settings.samples_teacher else None,
    job.batch,
    job.state.step,
    job.state.key,
    rows=job.rows,
  )


def lower_update(job: Job) -> Any:
  """Returns the lowered update, the state taken over, as in a run."""
  settings = job.settings
  run = jax.jit(
    functools.partial(step.update, settings),
    static_argnums=0,
    donate_argnums=1,
    out_shardings=(jax.tree.map(lambda x: x.sharding, job.state), None),
  )
  responses, goal = _responses(job), settings.objective
  judged = tuple(
    {
      name: jax.ShapeDtypeStruct(response.tokens.shape[:1], jnp.float32)
      for name in sorted(goal.rewards(draw) & settings.host_rewards)
    }
    for draw, response in zip(goal.draws(), responses)
  )
  return run.lower(
    settings.micro_batches(job.batch),
    job.state,
    job.frozen,
    job.batch,
    responses,
    judged,
  )


def _responses(job: Job) -> tuple[types.Response, ...]:
  """Returns the shapes of what an update is given, split by rows."""

  def draw(state, teacher, batch):
    drawn = state.step, state.key, job.rows
    params = step.policy(state)
    said, _ = step.rollout(job.settings, params, teacher, batch, *drawn)
    return step.recall(job.settings, state.replay, batch, said, *drawn)[1]

  teacher = job.run.frozen.get('teacher')
  found = jax.eval_shape(draw, job.state, teacher, job.batch)
  split = job.batch.prompt.tokens.sharding
  return jax.tree.map(lambda x: x.update(sharding=split), found)


def _samples(job: Job) -> bool:
  """Whether a step samples at all."""
  return bool(job.rows) or job.settings.samples_teacher


def _compile(
  job: Job, chip: chips.Chip, name: str, lower: Callable[[Job], Any]
) -> Program:
  start, meant = time.perf_counter(), chip.name
  logger.info('compiling the %s for %s', name, meant)
  compiled, asked = _try(job, lower)
  if compiled is None and meant != _ROOMY:
    meant = _ROOMY
    logger.info('it does not fit: compiling it for %s, to count', meant)
    roomy = make(job.config, chips.like(_ROOMY, job.mesh.size))
    compiled, asked = _try(roomy, lower)
  total = {'rollout': formula.rollout, 'update': formula.update}[name](job)
  program = functools.partial(
    Program,
    name=name,
    held=held(job),
    formula=total / job.mesh.size,
    compiled_for=meant,
    seconds=time.perf_counter() - start,
  )
  if compiled is None:
    rest = max(0.0, asked - sum(held(job).values()))
    return program(caches=0.0, temporaries=rest, code=0.0, cost=None)
  memory = compiled.memory_analysis()
  output = memory.output_size_in_bytes - memory.alias_size_in_bytes
  temporaries = memory.temp_size_in_bytes + output
  kept = min(caches(job), temporaries) if name == 'rollout' else 0.0
  return program(
    caches=kept,
    temporaries=temporaries - kept,
    code=float(memory.generated_code_size_in_bytes),
    cost=counting.count(_text(compiled)),
  )


def _text(compiled: Any) -> str:
  try:
    return compiled.as_text()
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f'this jaxlib cannot read what libtpu compiled ({error}): install the '
      "release of libtpu that jax asks for, pip install 'kdjax[plan]'"
    ) from error


def _try(job: Job, lower: Callable[[Job], Any]) -> tuple[Any, float]:
  """Returns what was compiled, or None and the bytes that it would need."""
  with jax.set_mesh(job.mesh):
    try:
      return lower(job).compile(), 0.0
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      return None, _asked(str(error))


def _asked(message: str) -> float:
  """Returns the bytes that the compiler says a program needs."""
  found = re.search(r'required[^(]*\(([\d.]+)([KMGT])\)', message)
  if not found:
    found = re.search(r'[Uu]sed ([\d.]+)([KMGT])', message)
  if not found:
    return math.inf
  return float(found.group(1)) * 1024 ** ('KMGT'.index(found.group(2)) + 1)


def held(job: Job) -> dict[str, float]:
  """Returns the bytes that a chip holds between steps, by what they are."""
  state = job.state
  found = {
    'parameters': on_chip((state.params, state.behaviour)),
    'optimizer': on_chip(state.opt_state),
  }
  for name, params in job.run.frozen.items():
    found[name] = on_chip(params)
  if state.replay is not None:
    found['replay'] = on_chip(state.replay)
  found['batch'] = on_chip((job.batch, state.step, state.key, state.skipped))
  return found


def on_chip(tree: Any) -> float:
  """Returns the bytes of one chip's part of arrays, by their shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x.dtype)
    for x in jax.tree.leaves(tree)
  )


def _itemsize(dtype: Any) -> int:
  if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
    return 8
  return dtype.itemsize


def caches(job: Job) -> float:
  """Returns the bytes of a chip's keys and values while it samples.

  Their rows are split over 'data' and 'fsdp', and heads over 'tensor' where it
  divides them.
  """
  c, settings, mesh = job.config, job.settings, job.mesh.shape
  samplers = []
  if job.rows:
    samplers.append(('student', c.sampling, job.rows, settings.samples))
  if job.settings.samples_teacher:
    samplers.append(('teacher', c.teacher_sampling, c.batch_size, 1))
  total, length = 0.0, c.task.max_prompt_tokens
  for role, options, rows, samples in samplers:
    model, params = job.models[role]
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    read = functools.partial(
      model.prefill, max_new_tokens=settings.max_new_tokens
    )
    prompt = types.Prompt(tokens, tokens.update(dtype=jnp.bool_))
    _, state = jax.eval_shape(read, params, prompt)
    heads = getattr(model.config, 'kv_heads', model.config.heads)
    spread = mesh['data'] * mesh['fsdp']
    parts = spread if rows % spread == 0 else 1
    parts *= mesh['tensor'] if heads % mesh['tensor'] == 0 else 1
    size = jnp.dtype(options.dtype or model.config.dtype).itemsize
    slots = sum(x.size for x in jax.tree.leaves(state.layers))
    total += samples * slots * size / parts
  return total


def seconds(cost: counting.Cost, chip: chips.Chip) -> dict[str, float]:
  """Returns the least time that each of a chip's limits allows (estimates)."""
  return {
    'compute': cost.flops / chip.flops,
    'memory': cost.bytes / chip.hbm_bandwidth,
    'network': cost.wire_bytes / chip.ici_bandwidth,
  }


def roofline(program: Program, chip: chips.Chip) -> tuple[float, str] | None:
  """Returns a program's least seconds, and which limit sets them."""
  if program.cost is None:
    return None
  limits = seconds(program.cost, chip)
  binding = max(limits, key=limits.get)
  return limits[binding], binding
