"""A reward model of Anthropic's conversations (Ouyang et al. 2022, eq. 1).

  python -m kdjax.main --config=configs/preference_reward_hh.py \\
      --workdir=runs/preference_reward

GPT-2 1.5B with a scalar head, one epoch with the paper's batch and learning
rate; its 6B GPT-3 and its rankings aren't public. Fine-tune the model on the
chosen answers first (configs/sft.py:task=hh_rlhf,model=gpt2-xl) and name it by
`:student=`. What it leaves in runs/preference_reward/student is the
`reward.path` of a run with reward='learned', such as the recipe 'reinforce'.

kdjax ships no pairs. `:embedded` learns to tell gold pronunciations (g2p) from
the shipped teacher's samples: the recipe 'terms' with the same loss. It writes
no text, so the table at the end says nothing.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, embedded=False, student='gpt2-xl')
  c = config_lib.default()
  if arg.embedded:
    pair = {'chosen': 'data', 'rejected': 'teacher'}
    term = {'name': 'reward', 'loss': 'bradley_terry', 'source': pair}
    c.recipe = {'name': 'terms', 'terms': [term]}
    embedded.quick(c)
    embedded.gently(c)
    c.task.teacher_responses = 'online'
    # At 1 the teacher's samples are hardly worse than what it learned from.
    c.teacher_sampling.temperature = 2.0
  else:
    c.recipe.name = 'preference_reward'
    gpt2.hh_rlhf(c)
    gpt2.train(c, arg.student)
    c.steps = 2_500
    c.batch_size = 64
    c.optimizer.learning_rate = 9e-6
    c.optimizer.weight_decay = 0.0
    c.optimizer.final_fraction = 0.1
    c.checkpoint.every = 500
    c.checkpoint.export = 'last'
  embedded.judge(c)
  return c
