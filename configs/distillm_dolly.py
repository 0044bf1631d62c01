"""DistiLLM on Dolly (Ko et al. 2024): skew divergences, and replayed samples.

  python -m kdjax.main --config=configs/distillm_dolly.py --workdir=runs/sgo

GPT-2 1.5B teaches GPT-2 120M, on the student's own responses in `:phi=` of the
rows. At first all of these are sampled, at last all are earlier ones, of which
the last 1,000 are kept, as in the released scripts. There φ starts at 0 and
grows by 0.1 whenever the validation loss has grown; here it is one number. The
scripts' term on plain text is left out. Fine-tune both models on Dolly first
(configs/sft.py:task=dolly) and name them by `:teacher=` and `:student=`.
`:divergence=skew_reverse_kl` is the paper's other loss.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    phi=0.5,
    divergence='skew_forward_kl',
    student='gpt2',
    teacher='gpt2-xl',
  )
  c = config_lib.default()
  if arg.embedded:
    embedded.quick(c)
  else:
    gpt2.dolly(c)
    gpt2.distil(c, arg.student, arg.teacher)
  falling = {'kind': 'linear', 'start': arg.phi, 'end': 0.0, 'steps': c.steps}
  c.recipe.name = 'distillm'
  c.recipe.divergence = arg.divergence
  c.recipe.student = falling
  c.recipe.replay = {**falling, 'start': 0.0, 'end': arg.phi}
  c.replay_size = 1_000
  return c
