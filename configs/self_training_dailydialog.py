"""Self-training on DailyDialog (He et al. 2020), LMReward's baseline.

  python -m kdjax.main --config=configs/self_training_dailydialog.py \\
      --workdir=runs/self_training

Gold answers, and the model's own to prompts that have none. Fine-tune T5 base
on DailyDialog first (configs/sft.py:task=dailydialog,model=google-t5/t5-base)
and name it by `:model=`: it is the teacher, and where the student starts. Its
answers are greedy, decoded at every step; dropout is the noise. The numbers of
training are our T5's, as the paper's are unknown. `:unlabelled=` names the
utterances without answers, one a line: the paper's are OpenSubtitles'.

`:embedded` does so with the models that kdjax ships for spelling to phonemes
(g2p), one tenth of the words labelled, with a CPU and no network. They were
trained on all of them, so it shows the machinery and no gain.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    weight=1.0,
    model=t5.BASE,
    unlabelled='data/opensubtitles.txt',
  )
  c = config_lib.default()
  c.recipe.name = 'self_training'
  c.recipe.weight = arg.weight
  if arg.embedded:
    embedded.quick(c)
    embedded.semi_supervised(c)
    c.teacher.path = c.student.path
  else:
    t5.dailydialog(c)
    t5.train(c, arg.model)
    t5.unlabelled(c, arg.unlabelled)
    c.task.vocabulary = t5.BASE
    c.teacher.path = arg.model
    c.teacher.dtype = c.teacher.weights = 'bfloat16'
  c.student.dropout = 0.1
  c.tasks.unlabelled.teacher_responses = 'online'
  c.teacher_sampling.temperature = 0.0
  return c
