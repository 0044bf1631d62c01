"""Responses that a recipe reads and a task's examples don't hold."""

from collections.abc import Collection

from kdjax import evaluation
from kdjax.config import task_section
from kdjax.objective import Objective


def problems(
  recipe: str, goal: Objective, task: str, kind: str, held: Collection[str]
) -> list[str]:
  """Returns what a recipe can't have of a task.

  Args:
    recipe: its name.
    goal: what it is made of.
    task: what the config calls the task; '' is the main one.
    kind: the task's own name.
    held: of 'data' and 'rejected', which responses its examples hold.
  """
  where = task_section(task)
  lacking, found = goal.sources(task) - set(held), []
  if 'data' in lacking:
    found.append(
      f'recipe {recipe!r} learns from gold responses, but the task {kind!r} '
      f'has none: name their column in {where}.args.target, or choose a recipe '
      "that learns from the student only, such as 'on_policy_kd'"
    )
  if 'rejected' in lacking:
    found.append(
      f'recipe {recipe!r} learns from pairs, but the task {kind!r} has no '
      f'rejected responses: name their column in {where}.args.rejected of the '
      "task 'file', or draw one side from a model, such as recipe 'dpkd'"
    )
  compare = sorted(_rewards(goal, task) & {*evaluation.METRICS, 'brevity'})
  if compare and 'data' not in held:
    found.append(
      f'recipe {recipe!r}: the reward {compare[0]!r} compares with gold '
      f'responses, but the task {kind!r} has none: name their column in '
      f'{where}.args.target, or choose a reward that a model gives'
    )
  return found


def _rewards(goal: Objective, task: str) -> set[str]:
  """Returns the rewards of a task's responses."""
  draws = [draw for draw in goal.draws() if draw.task == task]
  return {name for draw in draws for name in goal.rewards(draw)}
