"""DPO on Anthropic's conversations (Rafailov et al. 2023), or IPO, CPO, SimPO.

  python -m kdjax.main --config=configs/dpo_hh.py --workdir=runs/dpo

GPT-2 1.5B in place of the paper's Pythia 2.8B, and AdamW in place of RMSprop;
one epoch, β = 0.1. Fine-tune it on the chosen answers first
(configs/sft.py:task=hh_rlhf,model=gpt2-xl) and name it by `:student=`; as it
starts, it is the reference too. Arguments: `:form=dpo`, `:student=gpt2-xl`.

kdjax ships no pairs. `:embedded` prefers the gold pronunciation of a word (g2p)
to the student's own, sampled at every step, which the recipe 'dpo' can't say:
it is the recipe 'terms' with DPO's loss.
"""

from configs import embedded, gpt2
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(arg, embedded=False, form='dpo', student='gpt2-xl')
  c = config_lib.default()
  if arg.embedded:
    pair = {'chosen': 'data', 'rejected': 'teacher'}
    term = {'loss': arg.form, 'source': pair}
    c.recipe = {'name': 'terms', 'terms': [term]}
    embedded.quick(c)
    embedded.gently(c)
    c.task.teacher_responses = 'online'
    # At 1 the teacher's samples are hardly worse than what it learned from.
    c.teacher_sampling.temperature = 2.0
  else:
    c.recipe.name = 'dpo'
    c.recipe.form = arg.form
    gpt2.hh_rlhf(c)
    gpt2.train(c, arg.student)
    c.steps = 2_500
    c.batch_size = 64
    c.optimizer.learning_rate = 1e-6
    c.optimizer.weight_decay = 0.0
    c.optimizer.schedule = 'constant'
    c.optimizer.warmup_steps = 150
    c.eval.every = 500
    c.checkpoint.every = 500
    # What validates is part of what is reported.
    c.checkpoint.export = 'last'
  return c
