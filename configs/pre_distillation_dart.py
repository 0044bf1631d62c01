"""Pre-distillation on DART (Shleifer & Rush 2020), f-distill's first stage.

  python -m kdjax.main --config=configs/pre_distillation_dart.py \\
      --workdir=runs/pre_distillation

The student is three of the teacher's encoder layers and one of its decoder's;
it learns from its outputs and hidden states, with the embeddings frozen, by the
released script: 18 epochs where the f-distill paper says 28. T5 base, as deep
as the paper's BART-large, takes its place. Fine-tune it on DART first
(configs/sft.py:task=dart,model=google-t5/t5-base) and name it by `:teacher=`.
Other arguments: `:encoder=3`, `:decoder=1`, `:strategy=copied`.

`:embedded` does so with the model that kdjax ships for spelling to phonemes
(g2p), of whose 3 + 2 layers 2 + 1 stay, with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    encoder=0,
    decoder=1,
    strategy='copied',
    teacher=t5.BASE,
  )
  c = config_lib.default()
  c.recipe.name = 'pre_distillation'
  c.recipe.strategy = arg.strategy
  if arg.embedded:
    embedded.quick(c)
    c.student.path = c.teacher.path
  else:
    t5.f_distill(c, arg.teacher, arg.teacher)
    c.steps = 68_000
  encoder = arg.encoder or (2 if arg.embedded else 3)
  c.student.layers = {'encoder': encoder, 'decoder': arg.decoder}
  # Not the embeddings.
  c.optimizer.trainable = 'student/(encoder|decoder)'
  return c
