"""Supervised KD on XSum: forward KL on gold summaries, no rollouts.

  python -m kdjax.main --config=configs/supervised_kd_xsum.py --workdir=runs/kd

The baseline that GKD is compared with (Agarwal et al. 2024, L_SD). `:embedded`
distils the models that kdjax ships on debsum; see configs/gkd_xsum.py.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, embedded=False, student='small', teacher='xl')
  c = config_lib.default()
  c.recipe.name = 'supervised_kd'
  if arg.embedded:
    embedded.distil(c, embedded.debsum)
  else:
    t5.xsum(c)
    t5.distil(c, arg.student, arg.teacher)
  return c
