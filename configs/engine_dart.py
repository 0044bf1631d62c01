"""ENGINE on DART (Tu et al. 2020): the teacher's energy of what is said.

  python -m kdjax.main --config=configs/engine_dart.py --workdir=runs/engine

A baseline of f-distill (Wen et al. 2023), whose setting this is. T5 base takes
the place of BART-large. Fine-tune it on DART first
(configs/sft.py:task=dart,model=google-t5/t5-base), name it by `:teacher=`, and
make the student by configs/pre_distillation_dart.py. Arguments: `:form=soft`
(straight_through, reinforce), `:student=runs/pre_distillation/student`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    form='soft',
    student='runs/pre_distillation/student',
    teacher=t5.BASE,
  )
  c = config_lib.default()
  c.recipe.name = 'engine'
  c.recipe.form = arg.form
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
  else:
    t5.f_distill(c, arg.student, arg.teacher)
  return c
