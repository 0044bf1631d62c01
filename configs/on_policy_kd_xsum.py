"""On-policy KD on XSum: forward KL on the student's summaries alone.

  python -m kdjax.main --config=configs/on_policy_kd_xsum.py --workdir=runs/opkd

GKD with λ = 1 (Agarwal et al. 2024, L_OD). Both models must first be fine-tuned
on XSum; see configs/gkd_xsum.py. Arguments: `:divergence=forward_kl`,
`:student=small`, `:teacher=xl`. `:embedded` distils the models that kdjax ships
on debsum.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    divergence='forward_kl',
    student='small',
    teacher='xl',
  )
  c = config_lib.default()
  c.recipe.name = 'on_policy_kd'
  c.recipe.divergence = arg.divergence
  if arg.embedded:
    embedded.distil(c, embedded.debsum)
    c.steps = 300
  else:
    t5.xsum(c)
    t5.distil(c, arg.student, arg.teacher)
  return c
