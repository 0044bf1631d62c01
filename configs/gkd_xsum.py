"""GKD on XSum (Agarwal et al. 2024): T5 XL teaches T5 small, on-policy.

  python -m kdjax.main --config=configs/gkd_xsum.py --workdir=runs/gkd_xsum

is the paper's setting, for accelerators: T5 v1.1 LM-adapted, 40,000 steps.
Both models must first be fine-tuned on XSum (configs/sft_xsum.py); name them by
`--config.teacher.path` and `--config.student.path`. Arguments: `:lam=0.5` (the
fraction of student responses), `:beta=0.9` (JSD; 0 is forward KL, 1 reverse),
`:student=base`, `:teacher=large`.

  python -m kdjax.main --config=configs/gkd_xsum.py:embedded --workdir=runs/gkd

distils the models that kdjax ships on debsum: two CPU cores, no network. What
it scores and how long it takes stands in README.md.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, embedded=False, lam=0.5, beta=0.9, student='small', teacher='xl'
  )
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = arg.lam
  c.recipe.beta = arg.beta
  if arg.embedded:
    embedded.distil(c, embedded.debsum)
  else:
    t5.xsum(c)
    t5.distil(c, arg.student, arg.teacher)
  return c
