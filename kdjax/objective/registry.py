"""All losses that a term may name."""

from kdjax.objective import (
  features,
  pairs,
  policy,
  reward_models,
  token_losses,
)
from kdjax.objective.loss import Loss

LOSSES: dict[str, Loss] = {
  **token_losses.LOSSES,
  **policy.LOSSES,
  **pairs.LOSSES,
  **features.LOSSES,
  **reward_models.LOSSES,
}
