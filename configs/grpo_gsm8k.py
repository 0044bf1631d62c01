"""GRPO on GSM8K (Shao et al. 2024): right answers, relative to the group's.

  python -m kdjax.main --config=configs/grpo_gsm8k.py --workdir=runs/grpo

Qwen2 0.5B Instruct in place of DeepSeekMath 7B, eight samples to each problem
in place of 64, and two updates on each, so that the clip has a part. The rest
is the paper's: β = 0.04, learning rate 1e-6, 1,024 samples a step. It needs no
teacher and no fine-tuning. Arguments: `:reward=gsm8k_accuracy_flexible` (any
metric, or 'module:function'), `:samples=8`, `:kl_weight=0.04`,
`:student=Qwen/Qwen2-0.5B-Instruct`.

kdjax ships no word problems: `:embedded` lowers the phoneme error rate of the
student that it ships for spelling to phonemes (g2p), with a CPU and no network.
"""

from configs import embedded, t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg,
    embedded=False,
    reward='',
    samples=0,
    kl_weight=0.04,
    student='Qwen/Qwen2-0.5B-Instruct',
  )
  c = config_lib.default()
  c.recipe.name = 'grpo'
  c.recipe.kl_weight = arg.kl_weight
  if arg.embedded:
    embedded.quick(c)
    embedded.gently(c)
    c.recipe.reward = arg.reward or 'phoneme_error_rate'
    c.batch_size = 32
  else:
    t5.gsm8k(c)
    t5.train(c, arg.student)
    c.recipe.reward = arg.reward or 'gsm8k_accuracy_flexible'
    c.task.args = {'shots': 0}
    c.task.chat_template = True
    c.task.max_prompt_tokens = 512
    c.eval.metrics = ('gsm8k_accuracy_flexible',)
    c.steps = 500
    c.batch_size = 128
    c.micro_batch_size = 4
    c.optimizer.name = 'adamw'
    c.optimizer.learning_rate = 1e-6
    c.optimizer.schedule = 'constant'
    c.optimizer.warmup_steps = 0
    c.eval.every = 50
    c.checkpoint.every = 50
    # What validates is what is reported: the hub has no third split.
    c.checkpoint.export = 'last'
  c.sampling.samples_per_prompt = arg.samples or (4 if arg.embedded else 8)
  c.updates_per_rollout = 2
  return c
