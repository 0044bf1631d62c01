"""SeqKD on XSum: cross-entropy on the teacher's summaries (Kim & Rush 2016).

The teacher writes them first; training then reads them. Two commands, with the
same config and, for the models that kdjax ships (greedily, to save time), with
`:embedded`:

  python -m kdjax.main --config=configs/seqkd_xsum.py --mode=generate \\
      --workdir=runs/xsum_teacher
  python -m kdjax.main --config=configs/seqkd_xsum.py --workdir=runs/seqkd
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, embedded=False, student='small', teacher='xl')
  c = config_lib.default()
  c.recipe.name = 'seqkd'
  if arg.embedded:
    embedded.distil(c, embedded.debsum)
  else:
    t5.xsum(c)
    t5.distil(c, arg.student, arg.teacher)
    c.generate.beams = 5
  c.generate.model = 'teacher'
  c.task.teacher_responses = 'runs/xsum_teacher'
  return c
