"""kdjax's step on a shape, without files: for the scripts of one phase."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import shapes
from kdjax import models, optimizers, recipes, state, step, types
from kdjax.models import api


@dataclasses.dataclass
class Parts:
  """All that a step needs."""

  settings: step.Settings
  program: step.Program
  state: state.State
  frozen: dict[str, Any]
  batch: types.Batch

  @property
  def student(self) -> api.Params:
    return self.state.params['student']

  @property
  def rows(self) -> int:
    return self.batch.prompt.tokens.shape[0]

  def update(self) -> None:
    """One whole step."""
    self.state, _ = self.program.update(
      self.state, self.frozen, self.batch, self.rows
    )
    jax.block_until_ready(self.state.params)

  def compiled(self) -> Any:
    """The whole step's compiled program."""
    given = self.frozen, self.batch, self.rows
    return self.program.compile(self.state, *given)

  def by_phases(self) -> None:
    """The same as a program a phase."""
    self.state, _ = self.program.update(
      self.state,
      self.frozen,
      self.batch,
      self.rows,
      around=lambda _, run: run(),
    )
    jax.block_until_ready(self.state.params)

  def ahead(self) -> None:
    """The same, while the next step's rollouts are sampled."""
    given = self.frozen, self.batch, self.rows
    if self.state.pending_rollout is None:
      self.state = self.program.ahead(self.state, *given)
    self.state, _ = self.program.update(self.state, *given, self.batch)
    jax.block_until_ready(self.state.params)


Models = dict[str, tuple[api.LanguageModel, api.Params]]


def fresh(
  shape: shapes.Shape, dtype: str = 'float32', **options: Any
) -> Models:
  """Returns both models, freshly initialised; options as of `from_config`."""
  return {
    role: models.from_config(
      shapes.hf_config(shape, getattr(shape, role)),
      jax.random.key(seed),
      dtype=dtype,
      **options,
    )
    for seed, role in enumerate(('student', 'teacher'))
  }


def make(shape: shapes.Shape, made: Models, **settings: Any) -> Parts:
  """Returns on-policy GKD with beta 0.5.

  Args:
    shape: of the batch.
    made: 'student' and 'teacher'.
    **settings: in place of those of `step.Settings`; `sampling` adds to its.
  """
  sampling = {'min_new_tokens': shape.response, **settings.pop('sampling', {})}
  options = step.Settings(
    student=made['student'][0],
    teacher=made['teacher'][0],
    objective=objective(),
    optimizer=settings.pop('optimizer', None) or optimizer(),
    max_new_tokens=shape.response,
    sampling=sampling,
    **settings,
  )
  return Parts(
    settings=options,
    program=step.Program(options),
    state=state.create({'student': made['student'][1]}, options.optimizer, 0),
    frozen={'teacher': made['teacher'][1]},
    batch=batch(shape),
  )


def objective() -> Any:
  """Returns the peers' objective: JSD(0.5), a mean over the batch's tokens."""
  return recipes.build('gkd', **RECIPE)


RECIPE = {'lam': 1.0, 'beta': 0.5, 'normalize': 'token'}


def optimizer() -> Any:
  """Returns the peers' optimizer: AdamW behind clipping to norm 1."""
  return optimizers.build(
    optimizers.OptimizerConfig(name='adamw', learning_rate=1e-5)
  )


def batch(shape: shapes.Shape) -> types.Batch:
  """Returns the first prompts of a shape, on the device."""
  tokens = jnp.asarray(shapes.prompts(shape, shape.batch))
  return types.Batch(
    types.Prompt(tokens, jnp.ones_like(tokens, bool)),
    example_id=jnp.arange(shape.batch),
  )


def response(shape: shapes.Shape) -> types.Response:
  """Returns given responses, as if the student had sampled them."""
  tokens = jnp.asarray(shapes.responses(shape, shape.batch))
  return types.Response(tokens, jnp.ones_like(tokens, bool))
