"""Adaptive KL on Dolly (Wu et al. 2024): forward and reverse, by their gaps.

  python -m kdjax.main --config=configs/akl_dolly.py --workdir=runs/akl

GPT-2 1.5B teaches GPT-2 120M on gold responses. The paper's numbers beside μ
are unknown here; these are LMOps' for its baselines. Fine-tune the teacher on
Dolly first (configs/sft.py:task=dolly,model=gpt2-xl) and name it by
`:teacher=`. Arguments: `:mu=0.5`, `:student=gpt2`, `:teacher=gpt2-xl`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, embedded=False, mu=0.5, student='gpt2', teacher='gpt2-xl'
  )
  c = config_lib.default()
  c.recipe.name = 'akl'
  c.recipe.mu = arg.mu
  if arg.embedded:
    embedded.quick(c)
  else:
    gpt2.dolly(c)
    gpt2.distil(c, arg.student, arg.teacher)
  return c
