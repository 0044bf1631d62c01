"""What wasn't finite in a run, rewards and updates, and how it is reported."""

import logging
from typing import Any

logger = logging.getLogger(__name__)

# Before a reward's name in a step's metrics: an example that it isn't finite
# for, or -1.
REWARD = 'not_finite/'


class Watch:
  """Reports what wasn't finite, and ends a run that gets nowhere."""

  def __init__(self, max_skipped: int):
    """Ends a run after so many updates in a row that were skipped."""
    self._max_skipped = max_skipped
    self._told = 0

  def take(self, step: int, found: dict[str, Any]) -> dict[str, Any]:
    """Takes out of a step's metrics what is about that, and returns counts.

    Raises:
      FloatingPointError: too many updates in a row were skipped.
    """
    for name in [name for name in found if name.startswith(REWARD)]:
      example = int(found.pop(name)[0])
      if example >= 0:
        reward = name.removeprefix(REWARD)
        logger.warning(
          'step %d: the reward %r is not finite for example %d of the '
          'training split',
          *(step, reward, example),
        )
    counts = {k: found.pop(k) for k in ('skipped', 'consecutive_skipped')}
    in_a_row = int(counts['consecutive_skipped'][0])
    if in_a_row >= self._max_skipped:
      raise FloatingPointError(
        f'{in_a_row} consecutive updates up to step {step} were not finite '
        'and were skipped. Lower optimizer.learning_rate, or raise '
        f'max_skipped={self._max_skipped}. The checkpoints are intact.'
      )
    return counts

  def tell(self, step: int, counts: dict[str, Any], last: bool) -> None:
    """Logs how many updates were skipped, where they became more, or at last.

    Args:
      step: that is done.
      counts: from `take`.
      last: whether the run ends with it.
    """
    skipped = int(counts['skipped'][0])
    if skipped > self._told or (last and skipped):
      logger.warning(
        'step %d: %d updates so far were not finite and were skipped',
        *(step, skipped),
      )
    self._told = skipped
