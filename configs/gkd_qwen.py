"""GKD on GSM8K with decoder-only models: Qwen2.5 7B teaches 0.5B, on-policy.

  python -m kdjax.main --config=configs/gkd_qwen.py --workdir=runs/gkd_qwen

for accelerators: both are Instruct models from the hub and share a tokenizer;
every response is the student's (`:lam=0.5` mixes gold ones in), reverse KL
(`:beta=0` is forward KL). Arguments: `:student=1.5B`, `:teacher=14B`. What it
needs of which TPUs:

  python -m kdjax.main --mode=plan --config=configs/gkd_qwen.py \
    --topology=v5p:2x2x1 --config.mesh.fsdp=4

kdjax ships no word problems, so there is no `:embedded`.
"""

from configs import t5
from kdjax import config as config_lib


def get_config(arg: str | None = None):
  arg = config_lib.parse_arg(
    arg, lam=1.0, beta=1.0, student='0.5B', teacher='7B'
  )
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = arg.lam
  c.recipe.beta = arg.beta
  t5.gsm8k(c)
  c.task.max_prompt_tokens = 512
  c.task.chat_template = True
  c.student.path = f'Qwen/Qwen2.5-{arg.student}-Instruct'
  c.teacher.path = f'Qwen/Qwen2.5-{arg.teacher}-Instruct'
  c.task.vocabulary = c.student.path
  for model in (c.student, c.teacher):
    model.dtype = 'bfloat16'
    # 24 and 28 layers compile as one, in minutes less.
    model.scan = True
  # It computes in it anyway: half of the memory.
  c.teacher.weights = 'bfloat16'
  c.student.remat = True
  c.sampling.dtype = 'bfloat16'
  c.steps = 2_000
  c.batch_size = 64
  c.optimizer.name = 'adamw'
  c.optimizer.learning_rate = 1e-5
  c.optimizer.schedule = 'linear'
  c.optimizer.warmup_steps = 100
  c.eval.every = 200
  c.checkpoint.every = 200
  # What validates is what is reported: the hub has no third split.
  c.checkpoint.export = 'last'
  return c
