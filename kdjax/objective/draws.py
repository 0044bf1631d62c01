"""Draws: whose responses a term reads, and which rows of a batch get them."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.objective.specs import Spec, ends, spec_problems
from kdjax.optimizers import is_constant, schedule

# Those sampled at every step come first: rows are given to them first.
SAMPLED = ('student', 'greedy')
SOURCES = (*SAMPLED, 'replay', 'teacher', 'data', 'rejected')
REST = 'rest'
COINS = ('example', 'batch')

# Fractions are told apart to this: 0.3 isn't a float, and neither is 0.3 B.
_RESOLUTION = 1e-6


@dataclasses.dataclass(frozen=True)
class Draw:
  """One response a row: `y ~ source`, to the prompts of a task.

  Attributes:
    source: a name in `SOURCES`, or a mixture of them such as
      `{'data': 0.5, 'student': 0.5}`. Fractions may be schedules; one of them
      may be 'rest', what the others leave. 'replay' is what the student said
      up to now, each response with the prompt that it answers.
    task: the batch that the prompts come from; '' is the main one.
    coin: 'example' mixes the sources within each batch, stratified; 'batch'
      tosses one coin a batch, as in GKD's algorithm 1.
    rank: 'best' or 'worst' of the samples of each prompt, or '' for all.
    by: the reward that ranks them.
  """

  source: str | Mapping[str, Spec | str]
  task: str = ''
  coin: str = 'example'
  rank: str = ''
  by: str = ''

  def mixture(self) -> dict[str, Spec | str]:
    """Returns the fraction of each source, sampled ones first."""
    source = self.source
    fractions = {source: 1.0} if isinstance(source, str) else source
    return {k: fractions[k] for k in SOURCES if k in fractions}

  @property
  def key(self) -> str:
    """What tells draws apart that give other responses."""
    mixture = {
      k: float(v) if isinstance(v, (int, float)) else v
      for k, v in self.mixture().items()
    }
    coin = self.coin if len(mixture) > 1 else None
    return repr((self.task, mixture, coin, self.rank, self.by))

  @property
  def label(self) -> str:
    """What metrics call it: its task, sources and rank."""
    sources = '+'.join(self.mixture())
    return '/'.join(filter(None, (self.task, sources, self.rank)))

  @property
  def unranked(self) -> 'Draw':
    """The draw of all the samples that this one is chosen from."""
    return dataclasses.replace(self, rank='', by='')

  @property
  def sampled(self) -> str | None:
    """The source that the student must sample for it, if any."""
    return next((k for k in self.mixture() if k in SAMPLED), None)

  def fractions(self, step: Any) -> dict[str, Any]:
    """Returns the fraction of each source at a step, as numbers.

    Zeros are kept, so that the structure doesn't depend on the step.
    """
    mixture = self.mixture()
    values = {k: schedule(v)(step) for k, v in mixture.items() if v != REST}
    rest = 1.0 - sum(values.values())
    return {k: values.get(k, rest) for k in mixture}

  @property
  def scheduled(self) -> bool:
    """Whether the fractions depend on the step."""
    specs = self.mixture().values()
    return not all(v == REST or is_constant(v) for v in specs)

  def sources(self) -> set[str]:
    """Returns the sources that are drawn from, at whatever step."""
    if not self.scheduled:
      return {k for k, v in self.fractions(0).items() if v > _RESOLUTION}
    mixture = self.mixture().items()
    return {k for k, v in mixture if v == REST or max(ends(v)) > 0}

  def rollout_rows(self, step: int, batch_size: int, seed: int) -> int:
    """Returns how many rows of a batch the student must respond to at a step.

    A constant λ takes ⌈λB⌉ rows. A scheduled one takes the next of a few sizes
    (B, B/2, B/4, ... and 0), each of which is compiled once.
    """
    if self.sampled is None:
      return 0
    fraction = float(self.fractions(step)[self.sampled])
    if self.coin == 'batch':
      return batch_size if _coin(seed, step) < fraction else 0
    needed = max(math.ceil((fraction - _RESOLUTION) * batch_size), 0)
    return _bucket(needed, batch_size) if self.scheduled else needed

  def problems(self) -> list[str]:
    """Returns what is wrong with the source, each as a sentence."""
    if not isinstance(self.source, (str, Mapping)) or not self.source:
      return [
        f'source={self.source!r}: expected one of {list(SOURCES)}, or a '
        'mapping of some of these to fractions'
      ]
    names = {self.source} if isinstance(self.source, str) else set(self.source)
    if unknown := sorted(map(str, names - set(SOURCES))):
      return [f'unknown sources {unknown}; allowed are {list(SOURCES)}']
    if names >= set(SAMPLED):
      return [f'source mixes {list(SAMPLED)}; one of them may be in a mixture']
    specs = {k: v for k, v in self.mixture().items() if v != REST}
    found = []
    for name, spec in specs.items():
      found += spec_problems(f'source.{name}', spec, within=(0.0, 1.0))
    return found or self._sum_problems(specs)

  def _sum_problems(self, specs: Mapping[str, Spec]) -> list[str]:
    rests = len(self.mixture()) - len(specs)
    totals = [sum(values) for values in zip(*map(ends, specs.values()))]
    if rests > 1:
      return ["several sources take the 'rest'; one may"]
    if rests:
      if totals and max(totals) > 1 + _RESOLUTION:
        return [f"source fractions add up to {max(totals)}, leaving no 'rest'"]
    elif self.scheduled:
      return ["source fractions are scheduled: give one source the 'rest'"]
    elif abs(totals[0] - 1) > _RESOLUTION:
      return [f'source fractions add up to {totals[0]}, expected 1']
    return []


def _coin(seed: int, step: int) -> float:
  """A uniform number that (seed, step) determines."""
  return np.random.default_rng((seed, step)).uniform()


def _bucket(rows: int, batch_size: int) -> int:
  """Returns the least of B, ⌈B/2⌉, ⌈B/4⌉, ..., 0 that holds `rows`."""
  size = batch_size
  while size > 1 and -(-size // 2) >= rows:
    size = -(-size // 2)
  return size if rows else 0


def assign(
  draw: Draw, step: jax.Array, key: jax.Array, batch_size: int, rows: int
) -> jax.Array:
  """Returns which source each row of a batch takes, [B] int32 into the mixture.

  Stratified: over the batch, a source with fraction f gets ⌊fB⌋ or ⌈fB⌉ rows,
  fB on average. Which rows, `key` decides. The student's rows are among the
  first `rows` of `permutation(key, B)`, for which there are rollouts.

  Args:
    draw: whose mixture to draw.
    step: [] int32, for scheduled fractions.
    key: of the step, the same for all draws, so that they share rollouts.
    batch_size: B.
    rows: how many rows have rollouts.
  """
  fractions = draw.fractions(step)
  sampled = draw.sampled
  if draw.coin == 'batch' and len(fractions) > 1 and sampled:
    # The host tossed the coin when it chose `rows`.
    fractions = _tossed(fractions, sampled, heads=rows > 0)
  # Products of Python numbers: exact in float32 wherever fB is an integer.
  edges = [
    batch_size * total for total in itertools.accumulate(fractions.values())
  ]
  edges = jnp.array(edges[:-1], jnp.float32)
  nearest = jnp.round(edges)
  close = jnp.abs(edges - nearest) < _RESOLUTION * batch_size
  edges = jnp.where(close, nearest, edges)
  start = jax.random.uniform(jax.random.fold_in(key, 0))
  # Not floor(edge + start), which may round up to the next integer.
  up = edges - jnp.floor(edges) + start >= 1
  edges = (jnp.floor(edges) + up).astype(jnp.int32)
  if sampled and len(fractions) > 1:
    edges = edges.at[0].min(rows)
  place = jnp.argsort(permutation(key, batch_size))
  return jnp.sum(place[:, None] >= edges, 1).astype(jnp.int32)


def _tossed(
  fractions: Mapping[str, Any], sampled: str, heads: bool
) -> dict[str, Any]:
  """Returns all for the sampled source, or its part shared among the others."""
  if heads:
    return {k: float(k == sampled) for k in fractions}
  others = sum(v for k, v in fractions.items() if k != sampled)
  scale = 1 / jnp.maximum(others, 1e-9)
  return {k: 0.0 if k == sampled else v * scale for k, v in fractions.items()}


def permutation(key: jax.Array, batch_size: int) -> jax.Array:
  """Returns the order in which rows are given to the student, [B] int32."""
  return jax.random.permutation(jax.random.fold_in(key, 1), batch_size)
