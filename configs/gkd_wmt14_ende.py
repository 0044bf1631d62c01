"""GKD on WMT14 English to German (Agarwal et al. 2024): T5 XL to small.

  python -m kdjax.main --config=configs/gkd_wmt14_ende.py --workdir=runs/ende

100,000 steps, JSD(0.1), scored by BLEU with beams; for accelerators. Fine-tune
both models on the task first, as configs/sft_xsum.py does for XSum. kdjax ships
no translations, so there is no `:embedded`.
"""

from configs import t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, lam=0.5, beta=0.1, student='small', teacher='xl'
  )
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = arg.lam
  c.recipe.beta = arg.beta
  t5.wmt14_ende(c)
  t5.distil(c, arg.student, arg.teacher)
  c.steps = 100_000
  return c
