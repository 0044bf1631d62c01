"""MiniLLM on Dolly (Gu et al. 2024): reverse KL by policy gradient.

  python -m kdjax.main --config=configs/minillm_dolly.py --workdir=runs/minillm

GPT-2 1.5B teaches GPT-2 120M, whose rollouts have a fifth of the teacher in
every token's distribution and serve four updates each. The paper's 256 rollouts
a device, shuffled between the updates, are one batch here. Both models must
first be fine-tuned on Dolly (configs/sft.py:task=dolly); name them by
`:teacher=` and `:student=`. `:corpus=` is plain text, one a line or in jsonl's
'text': the paper's is OpenWebText. `:released` is what the released code does
to the rewards: their scale, discount, whitening and overlap with the single
step.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network. It keeps the words themselves for a corpus.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    released=False,
    corpus='data/openwebtext.txt',
    student='gpt2',
    teacher='gpt2-xl',
  )
  c = config_lib.default()
  c.recipe.name = 'minillm'
  if arg.released:
    c.recipe.released = True
    c.recipe.reward_scale = 0.5
    c.recipe.discount = 0.95
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.tasks.corpus = {'name': 'g2p'}
  else:
    gpt2.dolly(c)
    gpt2.distil(c, arg.student, arg.teacher)
    gpt2.policy(c)
    gpt2.corpus(c, arg.corpus)
  c.teacher_mix = 0.2
  c.updates_per_rollout = 4
  if not arg.embedded:
    c.steps //= c.updates_per_rollout
  return c
