"""Self-distillation on unlabelled dialogue (Hao et al. 2022, LMReward).

  python -m kdjax.main --config=configs/self_distillation_dailydialog.py \\
      --workdir=runs/self_distillation

A model's own induced reward teaches it on prompts that have no answer, by the
released script's numbers. Fine-tune T5 base on DailyDialog first
(configs/sft.py:task=dailydialog,model=google-t5/t5-base) and name it by
`:model=`: it is the teacher, and where the student starts. `:unlabelled=` names
the utterances without answers, one a line: the paper's are OpenSubtitles'.
`:sparse` defers rewards to the end.

`:embedded` does so with the student that kdjax ships for spelling to phonemes
(g2p), on nine tenths of the words, with a CPU and no network. It was trained on
all of them, so it shows the machinery and no gain.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    sparse=False,
    model=t5.BASE,
    unlabelled='data/opensubtitles.txt',
  )
  c = config_lib.default()
  c.recipe.name = 'self_distillation'
  c.recipe.sparse = arg.sparse
  if arg.embedded:
    embedded.policy(c)
    # Returns are near 12 here, a tenth of what the paper's scale expects; its
    # entropy term would outweigh them and flatten the student within 100 steps.
    c.recipe.scale = 10.0
    c.recipe.entropy_weight = 0.001
    embedded.semi_supervised(c)
    c.teacher.path = c.student.path
  else:
    t5.lmreward(c, arg.model)
    t5.unlabelled(c, arg.unlabelled)
    c.teacher.path = arg.model
    c.teacher.dtype = c.teacher.weights = 'bfloat16'
  return c
