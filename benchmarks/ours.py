"""kdjax's side of `benchmarks.peers`: its trainer, held between two steps."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import programs, roofline, shapes, workers


def run(
  station: workers.Station, shape: dict[str, Any], folder: str, dtype: str
) -> None:
  """Trains on the shape in a folder that `shapes.save` wrote."""
  os.environ['KDJAX_CACHE'] = f'{folder}/cache'
  from kdjax import train

  class Held(train.Trainer):
    """Stands in the station before each step."""

    phases: Phases

    def _step(self, done, current):
      self.phases.state = current
      station.hold(self.phases.named(), lambda: jax.block_until_ready(current))
      return super()._step(done, current)

  given = shapes.restore(shape)
  made = build(given, folder, dtype)
  with jax.set_mesh(made.mesh):
    trainer = Held(made, f'{folder}/work')
    trainer.phases = Phases(made, trainer.program, given, folder)
    trainer.train()


def build(shape: shapes.Shape, folder: str, dtype: str) -> Any:
  """Returns the run of a config such as a user would write."""
  from kdjax import build, checks, config

  c = config.default()
  c.recipe = {'name': 'gkd', **programs.RECIPE}
  c.task.name = 'file'
  c.task.args.path = f'{folder}/prompts.jsonl'
  c.task.args.input = 'prompt'
  c.task.vocabulary = f'{folder}/student'
  c.task.max_prompt_tokens = shape.prompt
  c.task.max_response_tokens = shape.response
  c.student.path, c.teacher.path = f'{folder}/student', f'{folder}/teacher'
  c.student.dtype = c.teacher.dtype = dtype
  c.sampling.min_new_tokens = shape.response  # no end of sequence before
  c.batch_size = shape.batch
  c.optimizer.learning_rate = 1e-5
  c.steps = c.checkpoint.every = 10**6
  c.log_every = 10  # TRL's logging_steps
  return build.build(checks.validate(c))


class Phases:
  """What the driver may ask for between two steps."""

  state: Any = None

  def __init__(self, made: Any, program: Any, shape: shapes.Shape, folder: str):
    self.run, self.program = made, program
    self.shape, self.folder = shape, pathlib.Path(folder)
    self.batch = made.place(programs.batch(shape))
    self.response = made.place(programs.response(shape))
    self._learner: Any = None

  def named(self) -> dict[str, Any]:
    return {
      'generate': self.generate,
      'learn': self.learn,
      'check': self.check,
      'peaks': lambda: roofline.measure(self.run.config.student.dtype),
      'devices': lambda: [each.device_kind for each in jax.devices()],
      'memory': workers.memory,
    }

  def generate(self) -> Any:
    """Samples a batch's responses."""
    found = self.program.rollout(
      self.state, self.run.frozen, self.batch, self.shape.batch
    )
    return jax.block_until_ready(found)

  def learn(self) -> dict[str, Any]:
    """Teacher, student, loss and gradient on given responses; no update.

    The step's own functions, with an optimizer that moves nothing: it still
    takes the gradients' norm.
    """
    frozen = self.run.frozen
    program, held = self._learner or self._make_learner()
    scored, _ = program.score(held, frozen, self.batch, (self.response,))
    held, found = program.learn(held, frozen, scored)
    self._learner = program, held
    return jax.block_until_ready(found)

  def _make_learner(self) -> tuple[Any, Any]:
    optimizer = optax.set_to_zero()
    settings = dataclasses.replace(self.run.settings(), optimizer=optimizer)
    # A copy, since learning takes the state over.
    held = jax.tree.map(jax.numpy.copy, self.state)
    held = dataclasses.replace(held, opt_state=optimizer.init(held.params))
    return type(self.program)(settings), held

  def check(self) -> dict[str, float]:
    """Returns loss and gradient norm; leaves logits of two rows in a file."""
    found = jax.device_get(self.learn())
    names = {'loss': 'loss/gkd', 'gradient_norm': 'gradient_norm'}
    logits = {}
    params = {'student': self.state.params['student'], **self.run.frozen}
    for role in ('student', 'teacher'):
      model = getattr(self.run, role)
      prompt, tokens = jax.tree.map(
        lambda x: x[:2], (self.batch.prompt, self.response.tokens)
      )
      hidden = model.hidden_states(params[role], prompt, tokens)
      logits[role] = np.asarray(model.head(params[role], hidden))
    np.savez(self.folder / 'kdjax.npz', **logits)
    values = {k: float(found[v][0] / found[v][1]) for k, v in names.items()}
    responses, _ = self.generate()
    return values | {'tokens': int(responses[0].mask.sum())}
