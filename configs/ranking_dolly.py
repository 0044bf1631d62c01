"""Ranking on Dolly: of the student's samples, the teacher's favourite wins.

  python -m kdjax.main --config=configs/ranking_dolly.py --workdir=runs/ranking

The best and the worst of four samples to each prompt, by the likelihood that
GPT-2 1.5B gives them, after ranking distillation (Tang & Wang 2018) and Zephyr
(Tunstall et al. 2023). No paper has this setting; the numbers are MiniLLM's.
Both models must first be fine-tuned on Dolly (configs/sft.py:task=dolly); name
them by `:teacher=` and `:student=`. Arguments: `:form=logistic` (hinge,
linear), `:length_normalized`, `:samples=4`, `:student=gpt2`,
`:teacher=gpt2-xl`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    form='logistic',
    length_normalized=False,
    samples=4,
    student='gpt2',
    teacher='gpt2-xl',
  )
  c = config_lib.default()
  c.recipe.name = 'ranking'
  c.recipe.form = arg.form
  c.recipe.length_normalized = arg.length_normalized
  c.sampling.samples_per_prompt = arg.samples
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.batch_size = 8
  else:
    gpt2.dolly(c)
    gpt2.distil(c, arg.student, arg.teacher)
    gpt2.policy(c)
  return c
