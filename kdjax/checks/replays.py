"""Earlier samples: how many are kept, and for whom."""

from kdjax.config import Config
from kdjax.objective import Objective


def problems(c: Config, name: str, goal: Objective) -> list[str]:
  """Returns what keeps a recipe from replaying what the student has said."""
  size, rows, samples = c.replay_size, c.batch_size, c.sampling
  if not goal.replayed():
    idle = f'replay_size={size} does nothing: recipe {name!r} replays nothing'
    return [idle + ', see the recipe distillm'] if size else []
  found = []
  if size < rows:
    found.append(
      f'replay_size={size}: recipe {name!r} replays what the student has said, '
      f'of which a step may bring batch_size={rows} rows: keep as many or more'
    )
  if samples.samples_per_prompt > 1:
    found.append(
      f'sampling.samples_per_prompt={samples.samples_per_prompt}: recipe '
      f'{name!r} keeps one response a prompt to replay: set it to 1'
    )
  return found
