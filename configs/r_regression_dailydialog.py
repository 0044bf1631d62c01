"""R-Regression on unlabelled dialogue (Hao et al. 2022): a learned reward.

  python -m kdjax.main --config=configs/r_regression_dailydialog.py \\
      --workdir=runs/r_regression

LMReward's baseline: the policy of configs/self_distillation_dailydialog.py,
with its numbers, but a reward model in place of the induced reward, and no
teacher. Fine-tune T5 base on DailyDialog first
(configs/sft.py:task=dailydialog,model=google-t5/t5-base) and name it by
`:model=`; then train the reward model
(configs/reward_regression_dailydialog.py) and name it by `:reward=`. A score is
at most 1, so nothing divides it. `:unlabelled=` names the utterances without
answers, one a line: the paper's are OpenSubtitles'.

`:embedded` does so on spelling to phonemes (g2p), once the same form of
reward_regression_dailydialog.py has left runs/reward_regression/student.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    model=t5.BASE,
    reward='runs/reward_regression/student',
    unlabelled='data/opensubtitles.txt',
  )
  c = config_lib.default()
  c.recipe.name = 'self_distillation'
  c.recipe.reward = 'learned'
  c.recipe.baseline = 'mean'
  if arg.embedded:
    embedded.policy(c)
    c.recipe.entropy_weight = 0.001
    embedded.semi_supervised(c)
  else:
    t5.lmreward(c, arg.model)
    t5.unlabelled(c, arg.unlabelled)
  c.recipe.scale = 1.0
  c.reward.path = arg.reward
  return c
