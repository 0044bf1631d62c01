"""The named systems, each a few terms.

To add one, write a function that returns an `Objective` in one of the modules
here and list it in `RECIPES`; its keyword arguments are what a config's
`recipe` section may hold.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kdjax import values
from kdjax.objective import Objective
from kdjax.recipes.custom import terms
from kdjax.recipes.f_distill import f_distill
from kdjax.recipes.layers import layer_matching, pre_distillation
from kdjax.recipes.on_policy import (
  distillm,
  engine,
  gkd,
  imitkd,
  on_policy_kd,
  supervised_kd,
)
from kdjax.recipes.preferences import dpkd, dpkd_token, dpo, ranking
from kdjax.recipes.reinforcement import gkd_rl, grpo, minillm, reinforce
from kdjax.recipes.reward_induction import llmr, self_distillation
from kdjax.recipes.reward_models import preference_reward, reward_regression
from kdjax.recipes.supervised import akl, self_training, seqkd, sft, word_kd

RECIPES: dict[str, Callable[..., Objective]] = {
  'sft': sft,
  'word_kd': word_kd,
  'seqkd': seqkd,
  'self_training': self_training,
  'akl': akl,
  'pre_distillation': pre_distillation,
  'layer_matching': layer_matching,
  'imitkd': imitkd,
  'supervised_kd': supervised_kd,
  'on_policy_kd': on_policy_kd,
  'gkd': gkd,
  'distillm': distillm,
  'engine': engine,
  'f_distill': f_distill,
  'minillm': minillm,
  'gkd_rl': gkd_rl,
  'grpo': grpo,
  'reinforce': reinforce,
  'llmr': llmr,
  'self_distillation': self_distillation,
  'reward_regression': reward_regression,
  'preference_reward': preference_reward,
  'dpkd': dpkd,
  'dpkd_token': dpkd_token,
  'dpo': dpo,
  'ranking': ranking,
  'terms': terms,
}


def build(name: str, **args: Any) -> Objective:
  """Returns the objective of a named system.

  Raises:
    ValueError: if the name, an argument or a value isn't valid; says all.
  """
  found = problems(name, args)
  if found:
    raise ValueError('\n'.join(found))
  return RECIPES[name](**args)


def takes(name: str, argument: str) -> bool:
  """Whether a recipe has an argument of this name, or takes any."""
  if name not in RECIPES:
    return False
  parameters = inspect.signature(RECIPES[name]).parameters
  kinds = {parameter.kind for parameter in parameters.values()}
  return argument in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def problems(name: str, args: Mapping[str, Any]) -> list[str]:
  """Returns what is wrong with a recipe's name and arguments."""
  if not isinstance(name, str) or name not in RECIPES:
    return [f'recipe.name={name!r}; known recipes are {sorted(RECIPES)}']
  found = values.problems(RECIPES[name], args)
  if not found:
    try:
      found = RECIPES[name](**args).problems()
    except (TypeError, ValueError) as error:
      found = [str(error)]
    known = [*inspect.signature(RECIPES[name]).parameters]
    hint = f'; {name} takes {", ".join(known[:-1])}, and what its loss takes'
    others = set(args) - set(known)
    # What is wrong with a loss's argument may be that there is none such.
    found = [x + hint * any(repr(o) in x for o in others) for x in found]
  return [f'recipe {name!r}: {problem}' for problem in found]
