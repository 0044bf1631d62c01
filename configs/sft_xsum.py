"""Supervised fine-tuning on XSum: what makes models ready for GKD.

  python -m kdjax.main --config=configs/sft_xsum.py --workdir=runs/sft_xsum

fine-tunes T5 v1.1 LM-adapted (`:size=small`, base, large, xl or xxl) on
accelerators. With `:embedded`, it trains the models that kdjax ships for
debsum, from nothing, on a CPU: first to copy windows of the document, which
takes a minute or two, then to write synopses.

  python -m kdjax.main --workdir=runs/copy_teacher \\
      --config=configs/sft_xsum.py:embedded,model=teacher,stage=copy
  python -m kdjax.main --workdir=runs/sft_teacher \\
      --config=configs/sft_xsum.py:embedded,model=teacher
"""

from configs import embedded, t5
from kdjax import config as config_lib

STEPS = {'teacher': 7_000, 'student': 2_500}


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, embedded=False, size='small', model='student', stage='summarise'
  )
  c = config_lib.default()
  c.recipe.name = 'sft'
  if not arg.embedded:
    t5.xsum(c)
    t5.train(c, t5.lm_adapted(arg.size))
    return c
  embedded.debsum(c)
  embedded.train(c, arg.model)
  if arg.stage == 'copy':
    c.task.name = 'debsum_windows'
    c.student.config = embedded.SHAPES['debsum'][arg.model]
    c.student.init = 'copy'
    c.optimizer.schedule = 'constant'
    c.steps = 300
    c.eval.every = 0
    c.checkpoint.export = 'last'
  elif arg.stage == 'summarise':
    c.student.path = f'runs/copy_{arg.model}/student'
    c.steps = STEPS[arg.model]
    if arg.model == 'teacher':
      c.optimizer.final_fraction = 0.303
  else:
    raise ValueError(f"stage={arg.stage!r}: expected 'copy' or 'summarise'")
  return c
