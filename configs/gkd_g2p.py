"""GKD on spelling to phonemes: small, sharp, no network.

python -m kdjax.main --config=configs/gkd_g2p.py --workdir=runs/gkd_g2p
"""

from configs import embedded
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, lam=0.5, beta=0.5)
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = arg.lam
  c.recipe.beta = arg.beta
  embedded.distil(c, embedded.g2p)
  return c
