"""Word-level KD on Dolly (Hinton et al. 2015), as LMOps' baseline.

  python -m kdjax.main --config=configs/word_kd_dolly.py --workdir=runs/word_kd

GPT-2 1.5B teaches GPT-2 120M on gold responses: half cross-entropy, half
forward KL, for 20 epochs. Fine-tune the teacher on Dolly first
(configs/sft.py:task=dolly,model=gpt2-xl) and name it by `:teacher=`. Arguments:
`:kd_weight=0.5`, `:temperature=1.0`, `:student=gpt2`, `:teacher=gpt2-xl`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    kd_weight=0.5,
    temperature=1.0,
    student='gpt2',
    teacher='gpt2-xl',
    lora=0,
    weights='float32',
  )
  c = config_lib.default()
  c.recipe.name = 'word_kd'
  c.recipe.kd_weight = arg.kd_weight
  c.recipe.temperature = arg.temperature
  if arg.embedded:
    embedded.quick(c)
  else:
    gpt2.dolly(c)
    gpt2.distil(c, arg.student, arg.teacher)
  c.teacher.weights = arg.weights
  if arg.lora:
    c.student.lora.rank = arg.lora
    c.optimizer.name = 'adamw'
  return c
