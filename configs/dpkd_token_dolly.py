"""DPKD as its authors released it, on Dolly: a preference at every token.

  python -m kdjax.main --config=configs/dpkd_token_dolly.py --workdir=runs/dpkdt

GPT-2 1.5B teaches GPT-2 120M on the teacher's responses, from which both
models' favourite tokens are compared. The numbers are the released script's;
the paper's own algorithm is configs/dpkd_dolly.py, and figures of the two
aren't to be compared. Both models must first be fine-tuned on Dolly
(configs/sft.py:task=dolly); name them by `:teacher=` and `:student=`. The
authors' data are written beforehand: by the same config with --mode=generate,
whose workdir `:responses=` then names; 'online' samples them at every step.
`:corpus=` is plain text, one a line or in jsonl's 'text'.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network. Its language-model terms read the words themselves.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    beta=0.1,
    kd_ratio=0.5,
    responses='online',
    corpus='data/openwebtext.txt',
    student='gpt2',
    teacher='gpt2-xl',
  )
  c = config_lib.default()
  c.recipe.name = 'dpkd_token'
  c.recipe.beta = arg.beta
  c.recipe.kd_ratio = arg.kd_ratio
  c.recipe.lm_task = 'corpus'
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.tasks.corpus = {'name': 'g2p'}
  else:
    gpt2.distil(c, arg.student, arg.teacher)
    gpt2.dpkd(c, arg.corpus)
  c.task.teacher_responses = arg.responses
  c.generate.temperature = 1.0
  return c
