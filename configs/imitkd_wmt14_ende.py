"""ImitKD on WMT14 English to German (Lin et al. 2020): the teacher corrects.

  python -m kdjax.main --config=configs/imitkd_wmt14_ende.py --workdir=runs/imit

The teacher's choice at every step of half gold, half greedy translations of the
student. T5 XL and small take the place of the paper's transformers, in the
setting of configs/gkd_wmt14_ende.py. Fine-tune both on the task first
(configs/sft.py:task=wmt14_ende) and name them by `--config.teacher.path` and
`--config.student.path`. Arguments: `:lam=0.5`, the student's share; `:soft` for
the whole distribution; `:student=small`, `:teacher=xl`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, embedded=False, lam=0.5, soft=False, student='small', teacher='xl'
  )
  c = config_lib.default()
  c.recipe.name = 'imitkd'
  c.recipe.lam = arg.lam
  c.recipe.soft = arg.soft
  c.sampling.temperature = 0.0
  if arg.embedded:
    embedded.quick(c)
  else:
    t5.wmt14_ende(c)
    t5.distil(c, arg.student, arg.teacher)
    c.steps = 100_000
  return c
