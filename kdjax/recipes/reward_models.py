"""Reward models: the student is a language model that learns to judge.

Its run leaves the scalar head in `student/auxiliary.safetensors`; another run
reads both from `reward.path`, as the reward 'learned'.
"""

from kdjax.objective import Objective, Term


def reward_regression(
  *, reward: str = 'bleu', source: str = 'teacher'
) -> Objective:
  """R-Regression's reward model: `E (R(x, ŷ) - r(ŷ, y))²` (Hao et al. 2022).

  Learns to predict the similarity of a model's samples to gold responses, so
  that it can judge where there is no gold.

  Args:
    reward: r, the similarity.
    source: of the samples ŷ: 'teacher', the model to be improved.
  """
  term = Term('reward', 'reward_regression', source, reward=reward)
  return Objective((term,))


def preference_reward() -> Objective:
  """A preference reward model: `-log σ(R(x, y_w) - R(x, y_l))`.

  Bradley & Terry (1952), on a file of pairs (Ouyang et al. 2022, eq. 1).
  """
  pair = {'chosen': 'data', 'rejected': 'rejected'}
  return Objective((Term('reward', 'bradley_terry', pair),))
