"""R-Regression's reward model on DailyDialog (Hao et al. 2022): BLEU, foretold.

  python -m kdjax.main --config=configs/reward_regression_dailydialog.py \\
      --workdir=runs/reward_regression

Learns which of a model's samples are like the gold answer. Fine-tune T5 base on
DailyDialog first (configs/sft.py:task=dailydialog,model=google-t5/t5-base) and
name it by `:model=`: it gives the samples, and the reward model starts from it.
The numbers of training are our T5's, as the paper's are unknown. Next:
configs/r_regression_dailydialog.py.

`:embedded` foretells the phoneme error rate of the shipped g2p teacher's
samples, with a CPU and no network. It writes no text, so the table at the end
says nothing.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, embedded=False, reward='', model=t5.BASE)
  c = config_lib.default()
  c.recipe.name = 'reward_regression'
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.recipe.reward = arg.reward or 'phoneme_error_rate'
  else:
    t5.dailydialog(c)
    t5.train(c, arg.model)
    c.recipe.reward = arg.reward or 'bleu'
    c.task.vocabulary = t5.BASE
    c.teacher.path = arg.model
    c.teacher.dtype = c.teacher.weights = 'bfloat16'
    c.checkpoint.export = 'last'
  embedded.judge(c)
  c.task.teacher_responses = 'online'
  return c
