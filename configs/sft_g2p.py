"""Trains the models that kdjax ships for g2p, on a CPU.

  python -m kdjax.main --config=configs/sft_g2p.py:model=teacher \\
      --workdir=runs/sft_g2p_teacher
"""

from configs import embedded
from kdjax import config as config_lib

STEPS = {'teacher': 5_000, 'student': 2_000}


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, model='student')
  c = config_lib.default()
  c.recipe.name = 'sft'
  embedded.g2p(c)
  embedded.train(c, arg.model)
  c.student.config = embedded.SHAPES['g2p'][arg.model]
  c.student.init = 'copy'
  c.batch_size = 32
  c.steps = STEPS[arg.model]
  return c
