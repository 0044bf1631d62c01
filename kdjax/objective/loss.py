"""What a term's loss is made of."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from kdjax.objective.readings import Target, View
from kdjax.objective.specs import Option


def response_target(views: tuple[View, ...], **unused: Any) -> Target:
  """The tokens of the response count."""
  return Target(views[0].response.mask)


@dataclasses.dataclass(frozen=True)
class Loss:
  """How a term's loss is computed.

  Attributes:
    values: (readings, target, params, **args) -> [R, T], or [R] for pairs;
      also, in a pair with that, metrics of the same shape by name.
    args: what `loss_args` may hold.
    needs: what must be at hand: 'teacher' (its logits),
      'reference' (its log-probabilities), 'reward' (the term's), 'samples' (the
      student's, with the log-probabilities they were sampled with), layers by
      kind (`models.api.CAPTURES`), or 'after' (the hidden state after each
      token). Or a function of `loss_args` that returns these.
    top_k: whether its teacher may be known by its likeliest tokens
      (`types.TopK`) in place of logits.
    tokenwise: whether its value at a token depends on what is read of that
      token alone: it is then given chunks of tokens, see `Reading`.
    pair: whether it compares two responses to each prompt.
    target: (views, **args) -> Target, from the whole batch; the term's reward
      comes as `reward`, its samples a prompt as `group`.
    auxiliary: (key, student, teacher, **args) -> parameters of the term's own,
      from the shapes of what it reads of both; None where it has none.
    problems: what is wrong with arguments that are right one by one.
  """

  values: Callable[..., Any]
  args: Mapping[str, Option] = dataclasses.field(default_factory=dict)
  needs: Collection[str] | Callable[..., Collection[str]] = ()
  top_k: bool = False
  tokenwise: bool = False
  pair: bool = False
  target: Callable[..., Target] = response_target
  auxiliary: Callable[..., Any] | None = None
  problems: Callable[[Mapping[str, Any]], list[str]] = lambda args: []

  def wants(self, loss_args: Mapping[str, Any]) -> set[str]:
    """Returns what the loss needs with these arguments."""
    if callable(self.needs):
      return set(self.needs(**self.filled(loss_args)))
    return set(self.needs)

  def filled(self, loss_args: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all arguments, with the defaults of those not given."""
    defaults = {name: option.default for name, option in self.args.items()}
    return {**defaults, **loss_args}


def with_metrics(value: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Splits what `Loss.values` returns into values and metrics."""
  return value if isinstance(value, tuple) else (value, {})
