"""The study of docs/study.md: every family of methods, at equal budgets.

  python launch/sweep.py --config=configs/study.py:task=g2p --seeds=3 \\
      --out=runs/study_g2p

and the same with task=debsum. Each run has as many updates, of as many prompts,
from the same student; what a method needs besides is its paper's or, where that
is about the scale of rewards, its shipped `:embedded` config's. Nothing was
tuned for a method but the rate: policy gradients and preferences, whose
gradients are noisy, take a third of the others'.

Arguments: `:task=g2p` (debsum), `:method=gkd` (METHODS), and for GKD `:lam=0.5`
and `:beta=0.5`.
"""

from configs import embedded
from kdjax import config as config_lib

TASKS = {'g2p': embedded.g2p, 'debsum': embedded.debsum}
STEPS = {'g2p': 240, 'debsum': 90}

METHODS = {
  'sft': {'name': 'sft'},
  'seqkd': {'name': 'seqkd'},
  'word_kd': {'name': 'word_kd'},
  'imitkd': {'name': 'imitkd', 'coin': 'batch'},
  'f_distill_kl': {'name': 'f_distill', 'divergence': 'kl'},
  'f_distill_rkl': {'name': 'f_distill', 'divergence': 'rkl'},
  'f_distill_js': {'name': 'f_distill', 'divergence': 'js'},
  'f_distill_tvd': {'name': 'f_distill', 'divergence': 'tvd'},
  'gkd': {'name': 'gkd'},
  'llmr': {'name': 'llmr', 'scale': 10.0, 'entropy_weight': 0.01},
  'minillm': {'name': 'minillm', 'lm_task': 'corpus'},
  'dpkd': {'name': 'dpkd', 'beta': 1.0},
}


def sweep(add):
  for method in METHODS:
    if method != 'gkd':
      add(method=method)
  for lam in (0.0, 0.5, 1.0):
    for beta in (0.1, 0.5, 0.9):
      add(method='gkd', student_fraction=lam, beta=beta)


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, task='g2p', method='gkd', lam=0.5, beta=0.5)
  for name, known in (('task', TASKS), ('method', METHODS)):
    if getattr(arg, name) not in known:
      value = getattr(arg, name)
      raise ValueError(f'{name}={value!r}; allowed are {", ".join(known)}')
  c = config_lib.default()
  embedded.distil(c, TASKS[arg.task])
  c.steps = STEPS[arg.task]
  c.recipe = METHODS[arg.method]
  # Whoever reads the teacher's responses gets them at every step.
  c.task.teacher_responses = 'online'
  if arg.method == 'seqkd':
    c.teacher_sampling.temperature = 0.0
  if arg.method == 'gkd':
    c.recipe.lam = arg.lam
    c.recipe.beta = arg.beta
  if arg.method in ('llmr', 'minillm', 'dpkd'):
    c.optimizer.learning_rate /= 3
  if arg.method == 'llmr':
    c.behaviour_sync = 10
    c.sampling.top_k = 2
  if arg.method == 'minillm':
    c.tasks.corpus = {'name': arg.task}
    c.teacher_mix = 0.2
    c.updates_per_rollout = 4
    c.steps //= c.updates_per_rollout
  c.log_every = c.steps // 15
  c.eval.every = c.checkpoint.every = c.steps // 3
  return c
