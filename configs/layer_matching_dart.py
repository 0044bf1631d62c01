"""Intermediate layers on DART (Yu et al. 2025), beside KD and gold responses.

  python -m kdjax.main --config=configs/layer_matching_dart.py \\
      --workdir=runs/layers

The student is three of the teacher's encoder layers and one of its decoder's
(the paper's "copied weights"). T5 base, as deep as BART-large, takes the place
of the paper's model, and the numbers of training are f-distill's on DART.
Fine-tune it on DART first (configs/sft.py:task=dart,model=google-t5/t5-base)
and name it by `:teacher=`.

Arguments: `:kind=hidden` (cosine, adversarial, attention, cross_attention) and
`:strategy=forward` (reverse, all_to_one, random, weighted, last, none), which
the paper compares; `:weight=3.0` of the match.

`:embedded` does so with the model that kdjax ships for spelling to phonemes
(g2p), of whose 3 + 2 layers 2 + 1 stay, with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    kind='hidden',
    strategy='forward',
    weight=3.0,
    teacher=t5.BASE,
  )
  c = config_lib.default()
  c.recipe.name = 'layer_matching'
  c.recipe.kind = arg.kind
  c.recipe.strategy = arg.strategy
  c.recipe.weight = arg.weight
  # An encoder attends to nothing but itself.
  crosses = arg.kind == 'cross_attention'
  c.recipe.stacks = ('decoder',) if crosses else ('encoder', 'decoder')
  if arg.embedded:
    embedded.quick(c)
    c.student.path = c.teacher.path
    c.student.layers = {'encoder': 2, 'decoder': 1}
  else:
    t5.f_distill(c, arg.teacher, arg.teacher)
    c.student.layers = {'encoder': 3, 'decoder': 1}
  return c
