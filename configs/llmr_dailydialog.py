"""LLMR on DailyDialog (Li et al. 2024): the teacher's induced reward.

  python -m kdjax.main --config=configs/llmr_dailydialog.py --workdir=runs/llmr

T0 3B, prompted, teaches T5 base, which reads the raw utterance. The paper's own
numbers of training are unknown; these are LMReward's (Hao et al. 2022). The
teacher needs no fine-tuning, but the student must be warm: first

  python -m kdjax.main --config=configs/llmr_dailydialog.py:warm \\
      --mode=generate --workdir=runs/t0_dailydialog
  python -m kdjax.main --config=configs/llmr_dailydialog.py:warm \\
      --workdir=runs/llmr_warm

have T0 answer and the student learn its answers; then name
runs/llmr_warm/student by `:student=`. Other arguments: `:sparse` for one reward
a sentence, `:reward=induced` (induced_soft).

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network. Its teacher reads no prompt.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    reward='induced',
    sparse=False,
    warm=False,
    student=t5.BASE,
    teacher='bigscience/T0_3B',
  )
  c = config_lib.default()
  if arg.warm:
    c.recipe.name = 'seqkd'
  else:
    c.recipe = {'name': 'llmr', 'reward': arg.reward, 'sparse': arg.sparse}
  if arg.embedded:
    embedded.policy(c)
    # Returns are near 12 here, a tenth of what the paper's scale expects; its
    # entropy term would outweigh them and flatten the student within 100 steps.
    if not arg.warm:
      c.recipe.scale = 10.0
      c.recipe.entropy_weight = 0.01
  else:
    t5.lmreward(c, arg.student)
    c.teacher.path = arg.teacher
    c.teacher.dtype = c.teacher.weights = 'bfloat16'
    c.task.teacher_prompts = ('The dialogue response of {input} is:',)
    c.task.max_teacher_prompt_tokens = 140
  if arg.warm:
    c.task.teacher_responses = 'runs/t0_dailydialog'
    c.behaviour_sync = 0
    if not arg.embedded:
      c.optimizer.learning_rate = 7e-4
      c.optimizer.schedule = 'linear'
  return c
