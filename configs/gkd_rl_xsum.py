"""GKD with RL on XSum (Agarwal et al. 2024, eq. 5): a reward beside JSD(0.9).

  python -m kdjax.main --config=configs/gkd_rl_xsum.py --workdir=runs/gkd_rl

T5 XL teaches T5 small on its own summaries while a reward pulls. The paper's
reward is a model of textual entailment, which says whether the article implies
the summary; kdjax has none, so that ROUGE-2 stands in. Give yours as
`:reward=module:function` (see kdjax/rewards.py). Both models must first be
fine-tuned on XSum (configs/sft_xsum.py); name them by `--config.teacher.path`
and `--config.student.path`. Arguments: `:alpha=0.5`, the share of distillation;
`:divergence=generalized_jsd` (reverse_kl), `:beta=0.9` of the first.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p)
with its error rate as reward, with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    reward='',
    alpha=0.5,
    divergence='generalized_jsd',
    beta=0.9,
    student='small',
    teacher='xl',
  )
  c = config_lib.default()
  c.recipe.name = 'gkd_rl'
  c.recipe.alpha = arg.alpha
  c.recipe.divergence = arg.divergence
  if arg.divergence == 'generalized_jsd':
    c.recipe.beta = arg.beta
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.recipe.reward = arg.reward or 'phoneme_error_rate'
  else:
    t5.xsum(c)
    t5.distil(c, arg.student, arg.teacher)
    c.recipe.reward = arg.reward or 'rouge2'
  return c
