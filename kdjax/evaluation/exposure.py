"""Exposure bias: how much worse a student gets on prefixes of its own."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from kdjax import distributed, types
from kdjax.evaluation import bootstrap, distribution, rollouts

# Divergences are sums of float32 numbers near 1, each good to 1e-7: below this
# many nats a token their ratio says nothing.
_NEGLIGIBLE = 1e-6


@dataclasses.dataclass(frozen=True)
class Exposure:
  """Divergence from the teacher by length l = 1, ..., L. All arrays are [L].

  L is the last position that both a student's and a teacher's sample reach.

  Attributes:
    student_divergence: D_s(l), in nats, along the student's own samples.
    teacher_divergence: D_t(l), along the teacher's.
    ex_error: ExError%(l); NaN where student and teacher agree (D_t(l) is 0).
    low: of ex_error, the ends of its bootstrap 95% interval over prompts.
    high: likewise.
    alive: share of samples that have an l-th token; the smaller of the two.
  """

  student_divergence: np.ndarray
  teacher_divergence: np.ndarray
  ex_error: np.ndarray
  low: np.ndarray
  high: np.ndarray
  alive: np.ndarray

  @property
  def length(self) -> np.ndarray:
    """l, which counts from 1."""
    return np.arange(1, len(self.ex_error) + 1)

  @property
  def accumulated_error(self) -> np.ndarray:
    """AccErr(l) = l D_s(l) / D_t(l): l itself where there is no bias."""
    return self.length * (1.0 + self.ex_error / 100.0)


def exposure_bias(
  pair: rollouts.Pair,
  batches: Iterable[tuple[types.Batch, int]],
  *,
  samples: int = 3,
  resamples: int = 1000,
  seed: int = 0,
) -> Exposure:
  """Excess error of a student's own prefixes over its teacher's, by length.

  ExError%(l) = 100 (D_s(l) - D_t(l)) / D_t(l), with
  D_s(l) = Σ_{t<=l} E_{y_<t ~ q} KL(p(. | x, y_<t) || q(. | x, y_<t)) and D_t
  the same with y_<t ~ p. Both are the forward KL over the whole vocabulary, of
  teacher p and student q at temperature 1; only prefixes are sampled. Position
  t averages over the samples that have a t-th token, the end-of-sequence token
  included: student and teacher end at different lengths.

  It is 0 at l = 1, where there is no prefix. It equals %ExAccErr, which is
  (R(l) - l ε(l)) / (l ε(l)) with R = D_s and l ε(l) = D_t(l).

  Args:
    pair: both models.
    batches: pairs of a batch of numpy arrays and the number of its rows that
      count, the first ones.
    samples: of each model, a prompt.
    resamples: of the bootstrap, which draws prompts.
    seed: of the bootstrap.

  Raises:
    ValueError: for no examples.

  References:
    Arora et al., "Why exposure bias matters: an imitation learning perspective
    of error accumulation in language generation", 2022.
  """
  statistics = [
    each
    for batch, valid in batches
    for each in _sums(pair, batch, samples)[:valid]
  ]
  if not statistics:
    raise ValueError('There are no examples to sample from: the set is empty.')
  statistics = np.stack(statistics)
  totals = statistics.sum(0)
  reached = totals[[1, 3]].min(0)
  length = int((reached > 0).sum())
  statistics, totals = statistics[..., :length], totals[:, :length]
  drawn = bootstrap.resampled_sums(
    statistics.reshape(len(statistics), -1), resamples, seed
  ).reshape(resamples, 4, length)
  student, teacher = _accumulated(totals)
  low, high = _percentiles(_excess(*_accumulated(drawn)))
  return Exposure(
    student_divergence=student,
    teacher_divergence=teacher,
    ex_error=_excess(student, teacher),
    low=low,
    high=high,
    alive=reached[:length] / (len(statistics) * samples),
  )


def _sums(pair: rollouts.Pair, batch: types.Batch, samples: int) -> np.ndarray:
  """Sums and counts [B, 4, T] of the KL at every position.

  Of each example's samples: the student's sum and count, then the teacher's.
  """
  columns = []
  for role in ('student', 'teacher'):
    sums, counts = 0.0, 0.0
    for drawn in pair.draw(role, batch, samples):
      found = distribution.token_divergences(
        pair.student,
        pair.student_params,
        pair.teacher,
        pair.teacher_params,
        drawn.prompt,
        drawn.response,
        teacher_prompt=drawn.teacher_prompt,
        names=('forward_kl',),
      )
      values, mask = distributed.fetch(
        (found['forward_kl'], drawn.response.mask)
      )
      sums, counts = sums + values.astype(np.float64), counts + mask
    columns += [sums, counts]
  return np.stack(columns, axis=1)


def _accumulated(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """D_s and D_t [..., T] from sums and counts [..., 4, T]."""
  with np.errstate(invalid='ignore'):
    means = sums[..., [0, 2], :] / sums[..., [1, 3], :]
  divergences = np.cumsum(means, axis=-1)
  return divergences[..., 0, :], divergences[..., 1, :]


def _excess(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
  """ExError% [..., T]; NaN where there is no divergence to speak of."""
  least = _NEGLIGIBLE * np.arange(1, teacher.shape[-1] + 1)
  teacher = np.where(teacher > least, teacher, np.nan)
  return 100.0 * (student - teacher) / teacher


def _percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The ends [T] of 95% of the resamples [R, T] that have a value."""
  ends = np.full((2, drawn.shape[1]), np.nan)
  for i, column in enumerate(drawn.T):
    # A resample may lack the few samples that are so long.
    if (column := column[~np.isnan(column)]).size:
      ends[:, i] = np.percentile(column, [2.5, 97.5])
  return ends[0], ends[1]
