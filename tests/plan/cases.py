"""Configs small enough to compile in seconds, of both families."""

from kdjax import checks
from kdjax import config as config_lib


def t5(width):
  return {
    'model_type': 't5',
    'd_model': width,
    'd_kv': 32,
    'd_ff': 2 * width,
    'num_heads': 4,
    'num_layers': 2,
    'num_decoder_layers': 2,
  }


def llama(width):
  return {
    'model_type': 'llama',
    'hidden_size': width,
    'intermediate_size': 2 * width,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'hidden_act': 'silu',
    'rms_norm_eps': 1e-6,
    'tie_word_embeddings': True,
  }


def get_config(arg: str | None = None):
  """GKD from a model to one half as wide, unless `changes` say otherwise."""
  arg = config_lib.parse_arg(arg, family='t5', width=128)
  model = {'t5': t5, 'llama': llama}[arg.family]
  c = config_lib.default()
  c.recipe.name = 'gkd'
  c.recipe.lam = 0.5
  c.student.config = model(arg.width)
  c.teacher.config = model(2 * arg.width)
  for each in (c.student, c.teacher):
    each.dtype = 'bfloat16'
    each.scan = True
    each.dropout = 0.0
  c.batch_size = 16
  c.task.name = c.task.vocabulary = 'g2p'
  c.task.max_prompt_tokens = 32
  c.task.max_response_tokens = 16
  c.checkpoint.best_metric = ''
  c.mesh.fsdp = 2
  c.steps = 10
  return c


def config(arg: str = '', **changes):
  """Returns the typed config; changes by their dotted keys."""
  c = get_config(arg)
  c.update_from_flattened_dict(changes)
  return checks.validate(c, 'plan')
