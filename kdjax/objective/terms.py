"""Terms and objectives: the one idea of kdjax as a data structure.

A distillation method is a weighted sum of expectations,

  L(θ) = Σ_k w_k · E_{x, y ~ source_k} [ loss_k(student_θ, teacher; x, y) ]

A `Term` is one summand. An `Objective` is the sum, and knows which responses
its terms need, how many of them the student must sample, and how per-token
values become one scalar.
"""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses, types
from kdjax.optimizers import is_constant, schedule

# A number, or a schedule of the step.
Spec = float | Mapping[str, Any]

SOURCES = ('student', 'teacher', 'data')
REST = 'rest'
NORMALIZERS = ('token', 'sequence', 'sum')
COINS = ('example', 'batch')

# Fractions are told apart to this: 0.3 isn't a float, and neither is 0.3 B.
_RESOLUTION = 1e-6


@dataclasses.dataclass(frozen=True)
class Loss:
  """How a term's loss is computed from logits.

  Attributes:
    values: (student_logits, teacher_logits, labels, **args) -> [B, T].
    needs_teacher: whether `teacher_logits` are read; None is passed otherwise.
    args: what `loss_args` may hold, with the defaults.
  """

  values: Callable[..., jax.Array]
  needs_teacher: bool
  args: Mapping[str, Any]


def _soft(fn: Callable[..., jax.Array]) -> Loss:
  """A loss against the teacher's distribution."""
  options = list(inspect.signature(fn).parameters.values())[2:]
  args = {option.name: option.default for option in options}
  return Loss(lambda s, t, y, **args: fn(s, t, **args), True, args)


def _argmax_cross_entropy(student_logits, teacher_logits, labels):
  del labels  # the teacher's choice replaces them
  best = jnp.argmax(jax.lax.stop_gradient(teacher_logits), -1)
  return losses.cross_entropy(student_logits, best)


LOSSES: dict[str, Loss] = {
  **{name: _soft(fn) for name, fn in losses.DIVERGENCES.items()},
  'soft_cross_entropy': _soft(losses.soft_cross_entropy),
  'cross_entropy': Loss(lambda s, t, y: losses.cross_entropy(s, y), False, {}),
  'argmax_cross_entropy': Loss(_argmax_cross_entropy, True, {}),
}


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand `w · E_{y ~ source}[loss]`.

  Attributes:
    name: of its metrics.
    loss: a name in `LOSSES`.
    source: a name in `SOURCES`, or a mixture of them such as
      `{'data': 0.5, 'student': 0.5}`. Fractions may be schedules; one of them
      may be 'rest', what the others leave.
    weight: w, a number or a schedule.
    normalize: 'token' (mean over the batch's tokens), 'sequence' (mean over
      each sequence, then over sequences; GKD eq. 2) or 'sum' (per-sequence sum,
      mean over sequences).
    coin: 'example' mixes the sources within each batch, stratified; 'batch'
      tosses one coin a batch, as in GKD's algorithm 1.
    loss_args: keyword arguments of the loss; numbers or schedules.
  """

  name: str
  loss: str
  source: str | Mapping[str, Spec | str] = 'data'
  weight: Spec = 1.0
  normalize: str = 'token'
  coin: str = 'example'
  loss_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def mixture(self) -> dict[str, Spec | str]:
    """Returns the fraction of each source, students first."""
    source = self.source
    fractions = {source: 1.0} if isinstance(source, str) else source
    return {k: fractions[k] for k in SOURCES if k in fractions}

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
    """Returns the sources that the term draws from, at whatever step."""
    if not self.scheduled:
      return {k for k, v in self.fractions(0).items() if v > _RESOLUTION}
    mixture = self.mixture().items()
    return {k for k, v in mixture if v == REST or max(_ends(v)) > 0}

  def problems(self) -> list[str]:
    """Returns what is wrong with the term, each as a sentence."""
    found = []
    for name, allowed in (('normalize', NORMALIZERS), ('coin', COINS)):
      if getattr(self, name) not in allowed:
        found.append(
          f'{name}={getattr(self, name)!r}; allowed are {list(allowed)}'
        )
    found += _spec_problems('weight', self.weight)
    found += self._loss_problems() + self._source_problems()
    return [f'term {self.name!r}: {problem}' for problem in found]

  def _loss_problems(self) -> list[str]:
    if self.loss not in LOSSES:
      return [f'unknown loss {self.loss!r}; known are {sorted(LOSSES)}']
    known, found = LOSSES[self.loss].args, []
    unknown = sorted(set(self.loss_args) - set(known))
    if unknown:
      found.append(f'{self.loss} takes no {unknown}; it takes {list(known)}')
    for key in sorted(set(self.loss_args) & set(known)):
      name, value = f'loss_args.{key}', self.loss_args[key]
      if isinstance(known[key], bool) or isinstance(value, bool):
        if type(value) is not type(known[key]):
          kind = type(known[key]).__name__
          found.append(f'{name}={value!r}: expected {kind}')
      elif key == 'temperature':
        found += _spec_problems(name, value, above=0.0)
      else:
        found += _spec_problems(name, value, within=(0.0, 1.0))
    return found

  def _source_problems(self) -> list[str]:
    if not isinstance(self.source, (str, Mapping)) or not self.source:
      return [
        f'source={self.source!r}: expected one of {list(SOURCES)}, or a '
        'mapping of some of these to fractions'
      ]
    names = {self.source} if isinstance(self.source, str) else set(self.source)
    if unknown := sorted(map(str, names - set(SOURCES))):
      return [f'unknown sources {unknown}; allowed are {list(SOURCES)}']
    specs = {k: v for k, v in self.mixture().items() if v != REST}
    found = []
    for name, spec in specs.items():
      found += _spec_problems(f'source.{name}', spec, within=(0.0, 1.0))
    return found or self._sum_problems(specs)

  def _sum_problems(self, specs: Mapping[str, Spec]) -> list[str]:
    rests = len(self.mixture()) - len(specs)
    totals = [sum(ends) for ends in zip(*map(_ends, specs.values()))]
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


def _ends(spec: Spec) -> tuple[float, float]:
  """Returns the two values that all others of a number or schedule lie between.

  Raises:
    ValueError, TypeError: for what `schedule` refuses.
  """
  schedule(spec)
  if isinstance(spec, (int, float)):
    return float(spec), float(spec)
  last = 'start' if is_constant(spec) else 'end'
  return float(spec['start']), float(spec[last])


def _spec_problems(
  name: str,
  spec: Any,
  *,
  within: tuple[float, float] = (-math.inf, math.inf),
  above: float = -math.inf,
) -> list[str]:
  try:
    ends = _ends(spec)
  except (TypeError, ValueError) as error:
    return [f'{name}: {error}']
  if not all(math.isfinite(end) for end in ends):
    return [f'{name}={spec}: expected a finite number']
  if not all(within[0] <= end <= within[1] for end in ends):
    return [f'{name}={spec}: expected {within[0]:g} to {within[1]:g}']
  if not min(ends) > above:
    return [f'{name}={spec}: must be above {above:g}']
  return []


@dataclasses.dataclass(frozen=True)
class Objective:
  """A weighted sum of terms."""

  terms: tuple[Term, ...]

  def problems(self) -> list[str]:
    """Returns what is wrong with the terms, each as a sentence."""
    found = [problem for term in self.terms for problem in term.problems()]
    names = [term.name for term in self.terms]
    if not names:
      found.append('an objective needs at least one term')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
      found.append(f'terms share the names {twice}; names must differ')
    return found or self._coin_problems()

  def _coin_problems(self) -> list[str]:
    """One toss decides for the batch, so it must be the same for all terms."""
    terms = [term for term in self.terms if 'student' in term.mixture()]
    tossed = any(term.coin == 'batch' for term in terms)
    if not tossed or len({_view_key(term) for term in terms}) == 1:
      return []
    return [
      f'terms {[term.name for term in terms]} draw from the student: for '
      "coin='batch' all of them need it, and the same source; or give all "
      "coin='example'"
    ]

  @property
  def needs_teacher(self) -> bool:
    """Whether some loss reads the teacher's logits."""
    return any(LOSSES[term.loss].needs_teacher for term in self.terms)

  def sources(self) -> set[str]:
    """Returns the sources that some term draws from, at whatever step."""
    return set().union(*(term.sources() for term in self.terms))

  def views(self) -> tuple[tuple[Term, ...], ...]:
    """Groups the terms that see the same responses: one forward pass each."""
    groups: dict[str, list[Term]] = {}
    for term in self.terms:
      groups.setdefault(_view_key(term), []).append(term)
    return tuple(tuple(group) for group in groups.values())

  def rollout_rows(self, step: int, batch_size: int, seed: int) -> int:
    """Returns how many rows of the batch the student must respond to at a step.

    A constant λ takes ⌈λB⌉ rows. A scheduled one takes the next of a few sizes
    (B, B/2, B/4, ... and 0), each of which is compiled once.
    """
    rows = 0
    for term in self.terms:
      if 'student' not in term.mixture():
        continue
      fraction = float(term.fractions(step)['student'])
      if term.coin == 'batch':
        needed = batch_size if _coin(seed, step) < fraction else 0
      else:
        needed = max(math.ceil((fraction - _RESOLUTION) * batch_size), 0)
        if term.scheduled:
          needed = _bucket(needed, batch_size)
      rows = max(rows, needed)
    return rows


def _view_key(term: Term) -> str:
  """Returns what decides which responses a term sees."""
  mixture = {
    k: float(v) if isinstance(v, (int, float)) else v
    for k, v in term.mixture().items()
  }
  return repr((mixture, term.coin if len(mixture) > 1 else None))


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
  term: Term, step: jax.Array, key: jax.Array, batch_size: int, rows: int
) -> jax.Array:
  """Returns which source each row of a batch takes, [B] int32 into the mixture.

  Stratified: over the batch, a source with fraction f gets ⌊fB⌋ or ⌈fB⌉ rows,
  fB on average. Which rows, `key` decides. The student's rows are among the
  first `rows` of `permutation(key, B)`, for which there are rollouts.

  Args:
    term: whose mixture to draw.
    step: [] int32, for scheduled fractions.
    key: of the step, the same for all terms, so that they share rollouts.
    batch_size: B.
    rows: how many rows have rollouts.
  """
  fractions = term.fractions(step)
  if term.coin == 'batch' and len(fractions) > 1 and 'student' in fractions:
    # The host tossed the coin when it chose `rows`.
    fractions = _tossed(fractions, heads=rows > 0)
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
  if 'student' in fractions and len(fractions) > 1:
    edges = edges.at[0].min(rows)
  place = jnp.argsort(permutation(key, batch_size))
  return jnp.sum(place[:, None] >= edges, 1).astype(jnp.int32)


def _tossed(fractions: Mapping[str, Any], heads: bool) -> dict[str, Any]:
  """Returns all for the student, or its part shared among the others."""
  if heads:
    return {k: float(k == 'student') for k in fractions}
  others = sum(v for k, v in fractions.items() if k != 'student')
  scale = 1 / jnp.maximum(others, 1e-9)
  return {k: 0.0 if k == 'student' else v * scale for k, v in fractions.items()}


def permutation(key: jax.Array, batch_size: int) -> jax.Array:
  """Returns the order in which rows are given to the student, [B] int32."""
  return jax.random.permutation(jax.random.fold_in(key, 1), batch_size)


def reduce(
  values: jax.Array, mask: jax.Array, normalize: str
) -> tuple[jax.Array, jax.Array]:
  """Returns a term's (sum, count): per-token values [B, T] to two scalars."""
  if normalize == 'token':
    return losses.masked_sum(values, mask), jnp.sum(mask)
  lengths = jnp.sum(mask, -1)
  sums = jax.vmap(losses.masked_sum)(values, mask)
  if normalize == 'sequence':
    sums = sums / jnp.maximum(lengths, 1)
  return jnp.sum(sums), jnp.sum(lengths > 0)


def count(response: types.Response, normalize: str) -> jax.Array:
  """Returns a term's count on a whole batch, known before any loss."""
  if normalize == 'token':
    return jnp.sum(response.mask)
  return jnp.sum(jnp.any(response.mask, -1))


def values(
  term: Term,
  step: jax.Array,
  student_logits: jax.Array,
  teacher_logits: jax.Array | None,
  labels: jax.Array,
) -> jax.Array:
  """Returns a term's per-token losses [B, T], with scheduled arguments."""
  args = {
    name: value if isinstance(value, bool) else schedule(value)(step)
    for name, value in term.loss_args.items()
  }
  return LOSSES[term.loss].values(
    student_logits, teacher_logits, labels, **args
  )
