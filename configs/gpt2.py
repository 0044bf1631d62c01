"""What the settings of GPT-2 share."""

from ml_collections import ConfigDict

# All sizes have its tokenizer.
VOCABULARY = 'gpt2'


def dolly(c: ConfigDict) -> None:
  """Dolly's instructions, answered by sampling (Gu et al. 2024)."""
  c.task.name = 'dolly'
  c.task.max_prompt_tokens = 256
  c.task.max_response_tokens = 256
  c.task.on_long = 'truncate'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.eval.temperature = 1.0
  c.eval.examples = 1_000
  c.checkpoint.best_metric = 'rougeL'


def hh_rlhf(c: ConfigDict) -> None:
  """Conversations with a better and a worse last answer."""
  c.task.name = 'hh_rlhf'
  c.task.max_prompt_tokens = 512
  c.task.max_response_tokens = 256
  c.task.on_long = 'drop'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  # The hub has no validation split.
  c.eval.split = 'test'
  c.eval.test_examples = 1_000
  c.checkpoint.best_metric = 'rougeL'


def train(c: ConfigDict, path: str) -> None:
  """The baselines of LMOps (MiniLLM's code) on Dolly: 20 epochs."""
  c.student.path = path
  c.student.dtype = 'bfloat16'
  c.student.remat = True
  c.task.vocabulary = VOCABULARY
  c.steps = 8_400
  c.batch_size = 32
  c.optimizer.name = 'adamw'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.weight_decay = 1e-2
  c.optimizer.schedule = 'cosine'
  c.eval.every = 420
  c.checkpoint.every = 420
  c.checkpoint.export = 'best'


def distil(c: ConfigDict, student: str, teacher: str) -> None:
  """Both are directories or hub ids, such as gpt2 and gpt2-xl."""
  train(c, student)
  c.teacher.path = teacher
  c.teacher.dtype = c.teacher.weights = 'bfloat16'


def policy(c: ConfigDict) -> None:
  """MiniLLM's policy gradient: 5,000 updates on batches of 16."""
  c.steps = 5_000
  c.batch_size = 16
  c.optimizer.learning_rate = 5e-6
  c.optimizer.schedule = 'constant'
  c.optimizer.warmup_steps = 100


def dpkd(c: ConfigDict, text: str) -> None:
  """DPKD's training on Dolly and a corpus, after `distil`: 30 epochs."""
  dolly(c)
  corpus(c, text)
  c.steps = 50_000
  c.batch_size = 8
  c.eval.every = 1_700
  c.eval.length_edges = (30, 70)
  c.checkpoint.every = 1_700


def corpus(c: ConfigDict, path: str) -> None:
  """Plain text for a language-model term, as `data.tasks` reads `text`."""
  c.tasks.corpus = {
    'name': 'text',
    'args': {'path': path},
    'max_prompt_tokens': 4,
    'max_response_tokens': 512,
  }
