"""GKD on GSM8K (Agarwal et al. 2024): FLAN-T5 XL to T5 base, forward KL.

  python -m kdjax.main --config=configs/gkd_gsm8k.py --workdir=runs/gsm8k

Chains of thought after four worked examples; 40,000 steps, for accelerators.
kdjax ships no word problems, so there is no `:embedded`.
"""

from configs import t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, lam=0.5, student='base', teacher='xl')
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = arg.lam
  c.recipe.divergence = 'forward_kl'
  t5.gsm8k(c)
  t5.distil(c, arg.student, arg.teacher)
  c.teacher.path = f'google/flan-t5-{arg.teacher}'
  c.student.path = f'google/flan-t5-{arg.student}'
  # What validates is what is reported: the hub has no third split.
  c.checkpoint.export = 'last'
  return c
