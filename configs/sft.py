"""Supervised fine-tuning: what the other configs' models must go through first.

  python -m kdjax.main --config=configs/sft.py:task=dolly,model=gpt2-xl \\
      --workdir=runs/sft_dolly_teacher

leaves a model in runs/sft_dolly_teacher/student, which another run then names
by `:teacher=` or `--config.teacher.path`. Tasks: dolly and hh_rlhf for GPT-2;
dart, dailydialog and wmt14_ende for T5. XSum and the models that kdjax ships
have configs/sft_xsum.py and configs/sft_g2p.py.
"""

from configs import gpt2, t5
from kdjax import config as config_lib

FAMILIES = {
  'dolly': gpt2,
  'hh_rlhf': gpt2,
  'dart': t5,
  'dailydialog': t5,
  'wmt14_ende': t5,
}


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, task='dolly', model='gpt2')
  if arg.task not in FAMILIES:
    raise ValueError(f'task={arg.task!r}: expected one of {sorted(FAMILIES)}')
  c = config_lib.default()
  c.recipe.name = 'sft'
  family = FAMILIES[arg.task]
  getattr(family, arg.task)(c)
  family.train(c, arg.model)
  return c
