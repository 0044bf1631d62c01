"""REINFORCE on XSum: ROUGE-L against the greedy summary (Rennie et al. 2017).

  python -m kdjax.main --config=configs/reinforce_xsum.py --workdir=runs/scst

Self-critical training of T5, without a teacher; the lengths are GKD's, the
learning rate ours. The paper captions images. Fine-tune the student on XSum
first (configs/sft_xsum.py) and name it by `--config.student.path`. Arguments:
`:reward=rougeL`, a metric or 'module:function' of your own; `:kl_weight=0.0`
keeps it near where it starts; `:student=small`.

`:embedded` lowers the phoneme error rate of the student that kdjax ships for
spelling to phonemes (g2p), with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, embedded=False, reward='', kl_weight=0.0, student='small'
  )
  c = config_lib.default()
  c.recipe.name = 'reinforce'
  c.recipe.kl_weight = arg.kl_weight
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.recipe.reward = arg.reward or 'phoneme_error_rate'
  else:
    t5.xsum(c)
    t5.train(c, t5.lm_adapted(arg.student))
    c.optimizer.learning_rate = 3e-5
    c.recipe.reward = arg.reward or 'rougeL'
  return c
