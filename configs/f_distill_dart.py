"""f-distill on DART (Wen et al. 2023): KL, RKL, JS or TVD of whole sequences.

  python -m kdjax.main --config=configs/f_distill_dart.py --workdir=runs/js

T5 base takes the place of BART-large. Fine-tune it on DART first
(configs/sft.py:task=dart,model=google-t5/t5-base), name it by `:teacher=`, and
make the student by configs/pre_distillation_dart.py. Twelve epochs, ancestral
samples with top_k=30 where the released script has a sampling beam search.

Arguments: `:divergence=js` (kl, rkl, tvd); for js, `:mixture=exact` and
`:skew=0.85` (the released script's; the paper's is 0.5); `:responses=online`,
which samples the teacher at every step as the paper does for KL, or a
directory: what the paper prefers for JS and TVD are its beams, written once by
the same config with --mode=generate; `:student=runs/pre_distillation/student`.

`:embedded` distils the models that kdjax ships, on spelling to phonemes (g2p),
with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    divergence='js',
    mixture='step_average',
    skew=0.5,
    responses='online',
    student='runs/pre_distillation/student',
    teacher=t5.BASE,
  )
  c = config_lib.default()
  c.recipe.name = 'f_distill'
  c.recipe.divergence = arg.divergence
  c.recipe.mixture = arg.mixture
  c.recipe.skew = arg.skew
  if arg.embedded:
    embedded.quick(c)
  else:
    t5.f_distill(c, arg.student, arg.teacher)
    c.sampling.top_k = 30
    c.generate.beams = 6
  c.task.teacher_responses = arg.responses
  return c
