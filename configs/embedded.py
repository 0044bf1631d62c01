"""What the `:embedded` settings share: shipped models, data in the package."""

from collections.abc import Callable

from ml_collections import ConfigDict


def _t5(width: int, mlp: int, heads: int, encoder: int, decoder: int) -> dict:
  return {
    'model_type': 't5',
    'd_model': width,
    'd_kv': 64,
    'd_ff': mlp,
    'num_heads': heads,
    'num_layers': encoder,
    'num_decoder_layers': decoder,
    'feed_forward_proj': 'relu',
    'dropout_rate': 0.0,
  }


# Hugging Face configs of the shipped models; `vocab_size` is the tokenizer's.
SHAPES = {
  'debsum': {
    'teacher': _t5(width=256, mlp=768, heads=4, encoder=3, decoder=2),
    'student': _t5(width=128, mlp=384, heads=2, encoder=2, decoder=1),
  },
  'g2p': {
    'teacher': _t5(width=192, mlp=512, heads=3, encoder=3, decoder=2),
    'student': _t5(width=96, mlp=256, heads=2, encoder=2, decoder=1),
  },
}


def debsum(c: ConfigDict) -> None:
  """Debian package descriptions to their one-line synopsis."""
  c.task.name = 'debsum'
  c.task.vocabulary = 'debsum'
  # 64 tokens hold the name and, nearly always, the first sentence; a synopsis
  # has 9.4 on average and 20 at the 99th percentile.
  c.task.max_prompt_tokens = 64
  c.task.max_response_tokens = 20
  c.task.on_long = 'truncate'
  c.checkpoint.best_metric = 'rouge2'


def g2p(c: ConfigDict) -> None:
  """English spelling to phonemes; words have at most 28 symbols."""
  c.task.name = 'g2p'
  c.task.vocabulary = 'g2p'
  c.task.max_prompt_tokens = 29
  c.task.max_response_tokens = 29
  c.checkpoint.best_metric = 'exact_match'


def train(c: ConfigDict, model: str) -> None:
  """How the shipped models are trained."""
  c.batch_size = 16 if model == 'teacher' else 32
  # Relative to each parameter's scale: the embeddings' is 1, the matrices'
  # near 1/16. One rate for all, as in AdamW, starves the embeddings.
  c.optimizer.name = 'adafactor'
  c.optimizer.learning_rate = 1e-2
  c.optimizer.warmup_steps = 100
  c.optimizer.schedule = 'linear'
  c.log_every = 100
  c.eval.every = 1_000
  c.checkpoint.every = 500
  c.checkpoint.export = 'best'


def distil(c: ConfigDict, task: Callable[[ConfigDict], None]) -> None:
  """Distils the shipped teacher into the shipped student of a task."""
  task(c)
  c.teacher.path = f'kdjax:{c.task.name}-teacher'
  c.student.path = f'kdjax:{c.task.name}-student'
  c.steps = 600
  c.batch_size = 32
  c.optimizer.name = 'adafactor'
  c.optimizer.learning_rate = 3e-3
  c.optimizer.warmup_steps = 20
  c.optimizer.schedule = 'linear'
  c.log_every = 20
  c.eval.every = 150
  c.checkpoint.every = 150


def quick(c: ConfigDict) -> None:
  """Half of `distil`, on spelling to phonemes."""
  distil(c, g2p)
  c.steps = 300


def gently(c: ConfigDict) -> None:
  """Small steps of large batches: a sample's reward tells little by itself."""
  c.batch_size = 128
  c.optimizer.learning_rate = 1e-3


def policy(c: ConfigDict) -> None:
  """LMReward's policy gradient, with a stale policy to sample from."""
  quick(c)
  gently(c)
  c.behaviour_sync = 10
  c.sampling.top_k = 2


def semi_supervised(c: ConfigDict) -> None:
  """A tenth of the words labelled, the rest without pronunciations."""
  c.task.args = {'part': 'labelled'}
  c.tasks.unlabelled = {'name': 'g2p', 'args': {'part': 'unlabelled'}}


def judge(c: ConfigDict) -> None:
  """For reward models, whose text means nothing: they judge."""
  c.eval.every = 0
  c.eval.test_examples = 64
  c.eval.divergences = False
