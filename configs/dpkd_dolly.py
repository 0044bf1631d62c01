"""DPKD on Dolly (arXiv 2406.19774): the teacher's response is preferred.

  python -m kdjax.main --config=configs/dpkd_dolly.py --workdir=runs/dpkd

GPT-2 1.5B teaches GPT-2 120M, as in the paper's algorithm 1; β and the numbers
of training are the released code's, which is another algorithm
(configs/dpkd_token_dolly.py). Both models must first be fine-tuned on Dolly
(configs/sft.py:task=dolly); name them by `:teacher=` and `:student=`.

Arguments: `:form=dpkd` (ipo, cpo, simpo: table 2); the ablations
`:length_normalized=false` and `:lm_weight=0`; `:responses=online`, or the
directory that the same config with --mode=generate wrote the teacher's
responses to; `:corpus=`, plain text for the language-model term, one a line or
in jsonl's 'text' (the paper's is like OpenWebText).

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network. Its language-model term reads the words themselves.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    form='dpkd',
    length_normalized=True,
    lm_weight=0.5,
    responses='online',
    corpus='data/openwebtext.txt',
    student='gpt2',
    teacher='gpt2-xl',
  )
  c = config_lib.default()
  c.recipe.name = 'dpkd'
  c.recipe.form = arg.form
  if not arg.length_normalized:
    c.recipe.length_normalized = False
  c.recipe.lm_weight = arg.lm_weight
  c.recipe.lm_task = 'corpus'
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    if arg.form == 'dpkd':
      # The released 0.1, of 7 sounds, would be lost beside the other term.
      c.recipe.beta = 1.0
    c.tasks.corpus = {'name': 'g2p'}
  else:
    gpt2.distil(c, arg.student, arg.teacher)
    gpt2.dpkd(c, arg.corpus)
  c.task.teacher_responses = arg.responses
  c.generate.temperature = 1.0
  return c
