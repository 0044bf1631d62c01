"""What a step is made of."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import objective, rewards, types
from kdjax.models import api

# What a step's random numbers are for; folded into its key.
ROLLOUT, MIXTURE, DROPOUT, TEACHER, TASK, REPLAY = range(6)

Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What a step is made of; holds no arrays, so that `jit` closes over it.

  Attributes:
    student: the model that trains.
    teacher: the frozen model, or None where nothing reads one.
    objective: what is minimised.
    optimizer: applied to the gradients.
    moves: which parameters it moves, by their paths; of the others there are no
      gradients.
    max_new_tokens: T of rollouts.
    sampling: further settings of `sampling.generate` for rollouts; beside them
      'dtype', what parameters are cast to, and 'gather', their shardings then.
    teacher_sampling: those of the teacher's responses where the batch has none,
      or None where it has them all.
    teacher_mix: α of teacher-mixed sampling: rollouts from αp + (1 - α)q.
    reward_model: the frozen reward model's architecture, for 'learned'.
    rewards: rewards of the caller's by name: functions over texts (see
      `kdjax.rewards`), or `rewards.Traced`.
    decode: tokens to text, for the former.
    updates_per_rollout: updates on each batch of responses.
    behaviour_sync: steps between copies of the student into the behaviour
      policy, which rollouts are then sampled from; 0 samples from the student.
    micro_batch: rows whose gradients are computed at a time, or None for all.
      The update doesn't depend on it (up to rounding, and but for dropout).
    chunk_size: tokens whose logits are held at a time, or None for as many as
      `losses.chunks` has room for. The update doesn't depend on it either.
    measure_every: steps between measurements of both divergences.
    shared: `numbers` are arguments of what is compiled, not parts of it.
  """

  student: api.LanguageModel
  teacher: api.LanguageModel | None
  objective: objective.Objective
  optimizer: optax.GradientTransformation
  max_new_tokens: int
  moves: Callable[[str], bool] = lambda path: True
  sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  teacher_sampling: Mapping[str, Any] | None = None
  teacher_mix: float = 0.0
  reward_model: api.LanguageModel | None = None
  rewards: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  decode: Callable[[Sequence[int]], str] | None = None
  updates_per_rollout: int = 1
  behaviour_sync: int = 0
  micro_batch: int | None = None
  chunk_size: int | None = None
  measure_every: int = 10
  shared: bool = False

  def numbers(self) -> dict[str, Any]:
    """Returns the constants that the step takes as arguments.

    They are the terms' weights and losses' arguments, and the temperatures of
    sampling, so that runs that differ in these alone share what is compiled;
    none unless that is `shared`, for a compiler makes more of constants.
    """
    if not self.shared:
      return {'terms': {}, 'temperatures': {}}
    # A temperature of 0 is another program: nothing is drawn.
    temperatures = {
      name: np.float32(getattr(self, name)['temperature'])
      for name in ('sampling', 'teacher_sampling')
      if (getattr(self, name) or {}).get('temperature', 0) > 0
    }
    return {
      'terms': jax.tree.map(np.float32, self.objective.numbers()),
      'temperatures': temperatures,
    }

  def bind(self, numbers: Mapping[str, Any]) -> 'Settings':
    """Returns the settings with other, possibly traced, `numbers`."""
    sampling = {
      name: {**getattr(self, name), 'temperature': jnp.asarray(temperature)}
      for name, temperature in numbers['temperatures'].items()
    }
    goal = self.objective.bind(numbers['terms'])
    return dataclasses.replace(self, objective=goal, **sampling)

  @property
  def num_tokens(self) -> int:
    """The ids that both models know; padded rows of the heads are left out."""
    sizes = [self.student.num_tokens]
    if self.teacher is not None:
      sizes.append(self.teacher.num_tokens)
    return min(sizes)

  @property
  def samples(self) -> int:
    """Samples a prompt."""
    return self.sampling.get('samples_per_prompt', 1)

  @property
  def samples_teacher(self) -> bool:
    """Whether a step samples from the teacher, or from a mixture with it."""
    online = 'teacher' in self.objective.sources()
    online &= self.teacher_sampling is not None
    return online or self.teacher_mix > 0

  @property
  def host_rewards(self) -> set[str]:
    """The rewards over texts, which the host computes."""
    return {
      name
      for name in self.objective.foreign_rewards() & set(self.rewards)
      if not isinstance(self.rewards[name], rewards.Traced)
    }

  def micro_batches(self, batch: types.Batch) -> int:
    """Returns in how many parts a batch is learned from.

    Raises:
      ValueError: `micro_batch` doesn't divide B.
    """
    size = batch.prompt.tokens.shape[0]
    rows = self.micro_batch or size
    if size % rows:
      raise ValueError(
        f'micro_batch_size={rows} does not divide batch_size={size}'
      )
    return size // rows

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """What ends a response."""
    return self.sampling.get('eos_id', self.student.eos_ids)

  def generation(
    self, model: api.LanguageModel, options: Mapping[str, Any]
  ) -> dict[str, Any]:
    """Completes settings of `sampling.generate`; no token that one lacks."""
    options = dict(options)
    foreign = range(self.num_tokens, model.num_tokens)
    suppressed = (*options.pop('suppress_ids', ()), *foreign)
    return {
      'max_new_tokens': self.max_new_tokens,
      'suppress_ids': suppressed,
      # Also where the teacher samples: what ends a response is one question.
      'eos_id': self.eos_ids,
      **options,
    }
