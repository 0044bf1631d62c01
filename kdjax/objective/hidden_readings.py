"""Readings whose logits are formed chunk by chunk, where a loss reads them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kdjax import types
from kdjax.losses import chunks
from kdjax.objective.readings import Reading, Target, View
from kdjax.objective.reductions import coefficients
from kdjax.objective.terms import Term


@dataclasses.dataclass(frozen=True)
class HiddenReading:
  """A `Reading` of hidden states, which never holds the logits [R, T, V].

  Attributes:
    view: the responses, with the teacher's hidden states.
    hidden: [R, T, D] the student's.
    head: the student's.
    teacher_head: the teacher's, or None.
    layers: see `Reading`.
    after: see `Reading`.
    chunk_size: tokens of a chunk, or None for what fits a budget.
    batch_axes: mesh axes that split the rows.
  """

  view: View
  hidden: jax.Array
  head: types.Head
  teacher_head: types.Head | None = None
  layers: Any = None
  after: Any = None
  chunk_size: int | None = None
  batch_axes: tuple[str, ...] = ()

  @property
  def compares(self) -> bool:
    """Whether the teacher's distributions are at hand, or their likeliest."""
    return self.teacher_head is not None or self.known is not None

  @property
  def known(self) -> types.TopK | None:
    """[R, T, k] the teacher's likeliest tokens, where a cache has them."""
    return self.view.response.teacher

  @property
  def mask(self) -> jax.Array:
    """[R, T] bool."""
    return self.view.response.mask

  @property
  def logprobs(self) -> jax.Array:
    """[R, T] log q(y_t), the student's."""
    return self.each(lambda reading: reading.logprobs)

  @property
  def teacher_logprobs(self) -> jax.Array:
    """[R, T] log p(y_t), the teacher's."""
    found = self.each(lambda reading: reading.teacher_logprobs)
    return jax.lax.stop_gradient(found)

  def each(self, function: Callable[..., Any], **args: Any) -> Any:
    """Returns values [R, T] of a tokenwise function (reading, **args).

    Whatever weights their gradients come with: it projects a second time.

    Args:
      function: returns values, or a tree of them.
      **args: [R, T], differentiated as well.
    """

    def run(hidden, head, args, tokens, shared):
      reading = _of_chunk(hidden, head, tokens, shared)
      return function(reading, **args), ()

    inputs = self._inputs(args, self._tokens())
    found = chunks.valued(run, self._plan(), inputs, self.mask.reshape(-1))
    return jax.tree.map(lambda x: x.reshape(self.mask.shape), found)

  def weigh(
    self,
    terms: Sequence[Term],
    targets: Mapping[str, Target],
    weights: Mapping[str, jax.Array],
    step: jax.Array,
  ) -> tuple[jax.Array, dict[str, tuple[jax.Array, dict[str, jax.Array]]]]:
    """Returns `Σ_k w_k · sum_k` of tokenwise terms, at one projection for all.

    And each term's values and further metrics, [R, T], without a gradient.

    Args:
      terms: that read this view.
      targets: of each term, by name.
      weights: w_k over the count of the whole batch, by name.
      step: [] int32, for scheduled arguments.
    """
    targets = {term.name: targets[term.name] for term in terms}
    masks = [target.mask for target in targets.values()]

    def run(hidden, head, args, tokens, shared):
      reading = _of_chunk(hidden, head, tokens[0], shared)
      found = {
        term.name: term.values(step, (reading,), tokens[1][term.name])
        for term in terms
      }
      values, more = ({k: v[i] for k, v in found.items()} for i in (0, 1))
      return values, more

    by_token = {
      term.name: _flat(
        weights[term.name]
        * coefficients(targets[term.name].mask, term.normalize)
      )
      for term in terms
    }
    total, (values, more) = chunks.weighted(
      run,
      self._plan(),
      self._inputs(None, (self._tokens(), jax.tree.map(_flat, targets))),
      jax.lax.stop_gradient(by_token),
      _flat(sum(masks) > 0),
    )
    found = {term.name: (values[term.name], more[term.name]) for term in terms}
    found = jax.tree.map(lambda x: x.reshape(self.mask.shape), found)
    return total, jax.lax.stop_gradient(found)

  def _plan(self) -> chunks.Plan:
    return chunks.make_plan(
      self.mask.shape,
      self.head.kernel.shape[1],
      self.chunk_size,
      self.batch_axes,
    )

  def _inputs(self, args: Any, tokens: Any) -> chunks.Inputs:
    tokens, shared = jax.lax.stop_gradient((tokens, self.teacher_head))
    args = jax.tree.map(_flat, args)
    return chunks.Inputs(_flat(self.hidden), self.head, args, tokens, shared)

  def _tokens(self) -> View:
    """The view's values of single tokens."""
    view = dataclasses.replace(
      self.view, prompt=None, ended=None, teacher_layers=None, rewards=None
    )
    return jax.tree.map(_flat, view)


def _of_chunk(hidden, head, view, teacher_head) -> Reading:
  teacher_logits = view.response.teacher
  if teacher_head is not None and view.teacher is not None:
    teacher_logits = teacher_head.logits(view.teacher)
  return Reading(view, head.logits(hidden), teacher_logits)


def _flat(x: jax.Array) -> jax.Array:
  """[R, T, ...] to [R * T, ...]."""
  return x.reshape(-1, *x.shape[2:])
