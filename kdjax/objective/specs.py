"""What a setting of a term may be: numbers, schedules, switches and names."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from kdjax import values
from kdjax.optimizers import is_constant, schedule

# A number, or a schedule of the step.
Spec = float | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Option:
  """What one argument of a loss may be.

  Attributes:
    default: also tells the type. None is allowed where it is the default.
    low: the least number.
    high: the greatest.
    above: numbers must be greater than this.
    choices: the names that a string may be.
    fixed: whether it must be a whole number, part of the program.
  """

  default: Any
  low: float = -math.inf
  high: float = math.inf
  above: float = -math.inf
  choices: tuple[str, ...] = ()
  fixed: bool = False

  def problems(self, name: str, value: Any) -> list[str]:
    """Returns what is wrong with a value, each as a sentence."""
    if value is None and self.default is None:
      return []
    if self.choices:
      if value in self.choices:
        return []
      shown = values.shown(value)
      return [f'{name}={shown}; allowed are {list(self.choices)}']
    if isinstance(self.default, bool) or isinstance(value, bool):
      if type(value) is type(self.default):
        return []
      kind = 'float' if self.default is None else type(self.default).__name__
      return [f'{name}={values.shown(value)}: expected {kind}']
    if self.fixed and not isinstance(value, int):
      return [f'{name}={values.shown(value)}: expected a whole number']
    limits = {'within': (self.low, self.high), 'above': self.above}
    return spec_problems(name, value, **limits)


def at_step(value: Any, step: Any) -> Any:
  """Returns a number or schedule's value at a step; others as they are."""
  if value is None or isinstance(value, (bool, str)):
    return value
  return schedule(value)(step)


def ends(spec: Spec) -> tuple[float, float]:
  """Returns the two values that all others of a number or schedule lie between.

  Raises:
    ValueError, TypeError: for what `schedule` refuses.
  """
  schedule(spec)
  if isinstance(spec, (int, float)):
    return float(spec), float(spec)
  last = 'start' if is_constant(spec) else 'end'
  return float(spec['start']), float(spec[last])


def spec_problems(
  name: str,
  spec: Any,
  *,
  within: tuple[float, float] = (-math.inf, math.inf),
  above: float = -math.inf,
) -> list[str]:
  """Returns what is wrong with a number or schedule, each as a sentence."""
  given = spec.values() if isinstance(spec, Mapping) else (spec,)
  for number in given:
    wrong = isinstance(number, (int, float)) and values.number_problem(number)
    if wrong:
      return [f'{name}={values.shown(spec)}: {wrong}']
  try:
    reached = ends(spec)
  except (TypeError, ValueError) as error:
    return [f'{name}: {error}']
  if not all(within[0] <= value <= within[1] for value in reached):
    return [f'{name}={spec}: expected {within[0]:g} to {within[1]:g}']
  if not min(reached) > above:
    return [f'{name}={spec}: must be above {above:g}']
  return []
