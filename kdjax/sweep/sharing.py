"""Which runs of a sweep gain by sharing what is compiled."""

import collections
import dataclasses
from collections.abc import Mapping

from kdjax import recipes
from kdjax.config import Config

# To compile a step of the shipped models takes 7 to 8 s. One that is shared is
# as fast (g2p) to 11% slower (debsum, 0.12 s a step): 600 of the latter lose
# what a compilation costs.
STEPS = 500


def shares(views: Mapping[int, Config]) -> set[int]:
  """Returns which runs share a program with another one and gain by that."""
  groups = collections.defaultdict(set)
  for i, view in views.items():
    if view.steps <= STEPS:
      groups[_program(view)].add(i)
  return {i for group in groups.values() if len(group) > 1 for i in group}


def _program(c: Config) -> str:
  """Describes what is compiled for a run, except for its arguments."""
  terms = []
  for term in recipes.build(**c.recipe).terms:
    numbers = term.numbers()
    args = {k: v for k, v in term.loss_args.items() if k not in numbers}
    weight = None if 'weight' in numbers else term.weight
    kind = sorted(numbers)
    terms.append(
      (dataclasses.replace(term, weight=weight, loss_args=args), kind)
    )
  drawn = {
    name: dataclasses.replace(section, temperature=section.temperature > 0)
    for name in ('sampling', 'teacher_sampling')
    if (section := getattr(c, name))
  }
  return repr((dataclasses.replace(c, recipe={}, **drawn), terms))
