"""A run that is over in seconds. The config's argument: the data's folder."""

from kdjax import config as config_lib

MODEL = {
  'model_type': 't5',
  'd_model': 16,
  'd_kv': 8,
  'd_ff': 32,
  'num_heads': 2,
  'num_layers': 1,
  'num_decoder_layers': 1,
}


def get_config(data: str):
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = 0.5
  c.task.name = 'file'
  c.task.args.path = f'{data}/{{split}}.jsonl'
  c.task.args.input = 'spelling'
  c.task.args.target = 'sounds'
  c.task.args.metrics = ('exact_match', 'phoneme_error_rate')
  c.task.vocabulary = 'g2p'
  c.task.max_prompt_tokens = 8
  c.task.max_response_tokens = 6
  c.student.config = MODEL
  c.student.dropout = 0.1
  c.teacher.config = MODEL
  c.steps = 40
  c.batch_size = 8
  c.micro_batch_size = 4
  c.log_every = 5
  c.optimizer.learning_rate = 3e-3
  c.eval.every = 20
  c.eval.batch_size = 8
  c.checkpoint.every = 5
  c.checkpoint.best_metric = 'forward_kl_gold'
  c.checkpoint.best_mode = 'min'
  c.checkpoint.export = 'best'
  return c
