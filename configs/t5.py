"""What the papers' T5 settings share."""

from ml_collections import ConfigDict

# T5 v1.0, 12 + 12 layers: what f-distill, LMReward and LLMR train.
BASE = 'google-t5/t5-base'


def xsum(c: ConfigDict) -> None:
  """XSum: one-sentence summaries of BBC articles."""
  c.task.name = 'xsum'
  c.task.max_prompt_tokens = 1024
  c.task.max_response_tokens = 64
  c.task.on_long = 'truncate'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.checkpoint.best_metric = 'rouge2'


def wmt14_ende(c: ConfigDict) -> None:
  """WMT14, English to German."""
  c.task.name = 'wmt14_ende'
  c.task.max_prompt_tokens = 80
  c.task.max_response_tokens = 80
  c.task.on_long = 'drop'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.checkpoint.best_metric = 'bleu'
  c.eval.beams = 4
  c.eval.length_penalty = 0.6


def gsm8k(c: ConfigDict) -> None:
  """GSM8K: four worked examples, then a problem, answered step by step."""
  c.task.name = 'gsm8k'
  c.task.max_prompt_tokens = 1024
  c.task.max_response_tokens = 320
  c.task.on_long = 'drop'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.checkpoint.best_metric = 'gsm8k_accuracy_flexible'
  # The hub has no validation split.
  c.eval.split = 'test'


def dart(c: ConfigDict) -> None:
  """DART: triples to a sentence, in f-distill's lengths."""
  c.task.name = 'dart'
  c.task.max_prompt_tokens = 128
  c.task.max_response_tokens = 256
  c.task.on_long = 'truncate'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.checkpoint.best_metric = 'bleu'
  c.eval.beams = 5


def dailydialog(c: ConfigDict) -> None:
  """DailyDialog: an utterance to the next one."""
  c.task.name = 'dailydialog'
  c.task.max_prompt_tokens = 128
  c.task.max_response_tokens = 64
  c.task.on_long = 'truncate'
  c.task.on_bad_example = 'skip'  # the hub's data has empty texts
  c.checkpoint.best_metric = 'bleu'


def train(c: ConfigDict, path: str) -> None:
  """Adafactor over a T5 from the hub, 32 examples a batch, no dropout."""
  c.student.path = path
  c.student.dtype = 'bfloat16'
  c.student.remat = True
  c.task.vocabulary = path
  c.steps = 40_000
  c.batch_size = 32
  c.optimizer.name = 'adafactor'
  c.optimizer.learning_rate = 3e-4
  c.optimizer.multiply_by_parameter_scale = False
  c.optimizer.warmup_steps = 2_000
  c.optimizer.schedule = 'linear'
  c.eval.every = 2_000
  c.checkpoint.every = 2_000
  c.checkpoint.export = 'best'


def distil(c: ConfigDict, student: str, teacher: str) -> None:
  """A T5 v1.1 LM-adapted teacher and student, by size."""
  train(c, lm_adapted(student))
  c.teacher.path = lm_adapted(teacher)
  c.teacher.dtype = c.teacher.weights = 'bfloat16'
  # XL has 24 + 24 layers: scanned, they compile as one, in minutes less. A
  # teacher that only scores loses nothing by it.
  c.teacher.scan = True


def lm_adapted(size: str) -> str:
  """The hub id of T5 v1.1 LM-adapted: small, base, large, xl or xxl."""
  return f'google/t5-{size}-lm-adapt'


def f_distill(c: ConfigDict, student: str, teacher: str) -> None:
  """f-distill's training on DART (Wen et al. 2023): 12 epochs of 30,526."""
  dart(c)
  train(c, student)
  c.task.vocabulary = BASE
  c.teacher.path = teacher
  c.teacher.dtype = c.teacher.weights = 'bfloat16'
  c.steps = 45_000
  c.batch_size = 8
  c.optimizer.name = 'adamw'
  c.optimizer.learning_rate = 1e-4
  c.optimizer.warmup_steps = 100


def lmreward(c: ConfigDict, model: str) -> None:
  """LMReward's policy gradient on DailyDialog (Hao et al. 2022)."""
  dailydialog(c)
  train(c, model)
  c.task.vocabulary = BASE
  c.steps = 100_000
  # The released 4 x 4 batches of 2,048 tokens are about 1,000 utterances.
  c.batch_size = 1024
  c.micro_batch_size = 128
  c.behaviour_sync = 5_000
  c.sampling.top_k = 2
  c.optimizer.name = 'adamw'
  c.optimizer.learning_rate = 1e-5
  c.optimizer.warmup_steps = 4_000
  c.optimizer.schedule = 'constant'


def unlabelled(c: ConfigDict, path: str) -> None:
  """Utterances that nobody answered, one a line."""
  c.tasks.unlabelled = {
    'name': 'file',
    'args': {'path': path, 'input': 'text'},
  }
