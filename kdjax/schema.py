"""The fields of a config: their types, defaults and ranges."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


def _choice(default: Any, *allowed: Any) -> Any:
  return dataclasses.field(default=default, metadata={'allowed': allowed})


def _at_least(default: Any, minimum: float) -> Any:
  return dataclasses.field(default=default, metadata={'minimum': minimum})


def _within(default: float, low: float, high: float, ends: str = '[]') -> Any:
  rules = {'within': (low, high), 'ends': ends}
  return dataclasses.field(default=default, metadata=rules)


def _names() -> Any:
  # A string of names is taken apart at its commas.
  return dataclasses.field(default=(), metadata={'names': True})


def _section() -> Any:
  return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Task:
  """Where examples come from.

  Attributes:
    name: a registered task.
    args: its own arguments, such as the path and columns of a local file.
    vocabulary: tokenizer: an embedded one, a file, a directory or a hub id.
    chat_template: put prompts through the tokenizer's chat template.
    max_prompt_tokens: S.
    max_response_tokens: T, of gold responses and of rollouts.
    on_long: what to do with longer examples.
    on_bad_example: what to do with bad ones, such as lines that don't parse and
      empty texts: stop, or leave them out and count them; see
      `data.gathering`.
    prompt_padding: which side padding stands on.
    limit: read only the first examples (0: all).
    teacher_prompts: templates of what the teacher reads, with '{input}' for the
      student's prompt; empty for the student's prompt itself.
    max_teacher_prompt_tokens: of these (0: max_prompt_tokens).
    teacher_responses: where a term draws from the teacher: the directory that
      `--mode=generate` wrote, or 'online' to sample at every step.
    teacher_logprobs: what terms compare with on the teacher's responses: a
      'live' teacher, or the log-probabilities of its likeliest tokens that are
      'cached' with them, for which the run needs no teacher; see
      `generate.top_logprobs` and `losses.sparse`.
    accept_other_teacher: learn from `teacher_responses` that another teacher
      than the config's gave.
  """

  name: str = 'debsum'
  args: Mapping[str, Any] = _section()
  vocabulary: str = 'debsum'
  chat_template: bool = False
  max_prompt_tokens: int = _at_least(64, 1)
  max_response_tokens: int = _at_least(24, 1)
  on_long: str = _choice('error', 'error', 'truncate', 'drop')
  on_bad_example: str = _choice('error', 'error', 'skip')
  prompt_padding: str = _choice('right', 'right', 'left')
  limit: int = _at_least(0, 0)
  teacher_prompts: tuple[str, ...] = ()
  max_teacher_prompt_tokens: int = _at_least(0, 0)
  teacher_responses: str = ''
  teacher_logprobs: str = _choice('live', 'live', 'cached')
  accept_other_teacher: bool = False


@dataclasses.dataclass(frozen=True)
class Lora:
  """Low-rank factors that train in a student's place (Hu et al. 2021).

  The student stays as it is, W = base + alpha / rank * A B beside it learns,
  and `student/` holds W. See `models.add_lora`.

  Attributes:
    rank: of the factors; 0 trains the student itself.
    alpha: scales what they add.
    targets: a regular expression, searched in paths of parameters: the matrices
      that have factors. Attention's queries and values by default; all of a
      layer's are r'/kernel$'.
  """

  rank: int = _at_least(0, 0)
  alpha: float = _within(16.0, 0, math.inf, '()')
  targets: str = r'(^|/)(q|v)/kernel$'


@dataclasses.dataclass(frozen=True)
class Model:
  """A model to load, or to initialise.

  Attributes:
    path: a directory or hub id; `kdjax:NAME` for a model that kdjax ships.
    config: a Hugging Face config to initialise from, in place of `path`.
    init: how a fresh model starts: 'standard', or 'copy' (encoder-decoders;
      attention that already finds its like, see `encoder_decoder`).
    dtype: what matrices are multiplied in.
    weights: what parameters are stored in where they don't train: of a teacher
      'bfloat16' takes half of the memory, 'int8' a quarter except for
      embeddings and head, which are bfloat16 then. With `dtype='bfloat16'`, the
      former changes no result. A student's are float32, except beside `lora`.
    scan: scan over layers: compiles faster, decodes slower.
    remat: recompute layers in the backward pass: less memory.
    remat_policy: what is kept of a layer all the same: 'nothing', the products
      of its matrices ('dots'), or those except attention's ('dots_no_batch').
    attention: 'cudnn' is for bfloat16 on NVIDIA GPUs; see
      `layers.choose_attention` for where it serves.
    dropout: rate while training.
    layers: keeps so many layers of what `path` names, by stack, such as
      `{'encoder': 3, 'decoder': 1}`; see `models.copy_layers`.
    lora: of the student.
    sharding: changes of `partitioning.RULES`: the mesh axes that split what
      parameters are made of, such as `{'embed': 'data+fsdp'}` for a teacher
      that is split where the student is copied.
  """

  path: str = ''
  config: Mapping[str, Any] = _section()
  layers: Mapping[str, Any] = _section()
  sharding: Mapping[str, str] = _section()
  init: str = _choice('standard', 'standard', 'copy')
  dtype: str = _choice('float32', 'float32', 'bfloat16')
  weights: str = _choice('float32', 'float32', 'bfloat16', 'int8')
  scan: bool = False
  remat: bool = False
  remat_policy: str = _choice('nothing', 'nothing', 'dots', 'dots_no_batch')
  attention: str = _choice('plain', 'plain', 'xla', 'cudnn')
  dropout: float = _within(0.0, 0, 1, '[)')
  lora: Lora = Lora()


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How responses are drawn while training.

  Attributes:
    samples_per_prompt: responses to each prompt.
    dtype: what weights are cast to for it, once a rollout; empty for the
      model's own. In 'bfloat16' an accelerator reads half the bytes a token.
    gather: where the mesh splits the model's 'embed' axes, as fsdp does, gather
      them once a rollout: more memory, but no collectives at every token.
  """

  temperature: float = _at_least(1.0, 0.0)
  top_k: int = _at_least(0, 0)
  top_p: float = _within(1.0, 0, 1, '(]')
  min_p: float = _within(0.0, 0, 1, '[)')
  min_new_tokens: int = _at_least(0, 0)
  samples_per_prompt: int = _at_least(1, 1)
  block: int = _at_least(8, 1)
  dtype: str = _choice('', '', 'float32', 'bfloat16')
  gather: bool = True


@dataclasses.dataclass(frozen=True)
class TeacherSampling(Sampling):
  """How a teacher that responds online is sampled.

  Attributes:
    draft_tokens: how many the student drafts at a time, for the teacher to
      accept or not (0: none); see `sampling.speculate`.
  """

  gather: bool = False
  draft_tokens: int = _at_least(0, 0)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """See `optimizers.OptimizerConfig`, which counts in updates.

  Its `total_steps` is the config's `steps` times `updates_per_rollout`.
  """

  name: str = _choice('adamw', 'adafactor', 'adamw', 'sgd')
  learning_rate: float = _within(1e-3, 0, math.inf, '()')
  schedule: str = _choice('constant', 'constant', 'linear', 'cosine', 'rsqrt')
  warmup_steps: int = _at_least(0, 0)
  final_fraction: float = _within(0.0, 0, 1)
  weight_decay: float = _at_least(0.0, 0)
  b1: float = _within(0.9, 0, 1, '[)')
  b2: float = _within(0.999, 0, 1, '[)')
  clip_norm: float = _at_least(1.0, 0.0)
  multiply_by_parameter_scale: bool = True
  trainable: str = ''


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What is measured, when and how.

  Attributes:
    every: steps between evaluations on the validation split (0: never).
    examples: how many validation examples (0: all).
    test_examples: how many test examples in the final table (0: all).
    split: of the evaluations while training.
    test_split: of the final table and of `--mode=evaluate`.
    metrics: names in `evaluation.text.METRICS`, such as 'rouge1,rougeL'; empty
      for the task's own.
    batch_size: prompts decoded at a time.
    temperature: of evaluation alone; 0 is greedy.
    beams: above 1, beam search.
    length_penalty: of beam search.
    samples: prompts shown with every system's response.
    browse: examples whose tokens are kept with their divergences, for
      report.html (0: none).
    references: also score the teacher and the student as it was before. The
      runs of a sweep leave that to one of them.
    divergences: also measure divergences from the teacher.
    texts: what `--mode=evaluate` scores in place of models: a file with a
      response a line, or a .jsonl file of 'text' and 'id'; see
      `evaluation.predictions.read`.
    analyses: what `--mode=evaluate` finds beside the metrics: names in
      `evaluation.ANALYSES`.
    samples_per_prompt: of analyses that sample.
    temperatures: of 'temperatures'.
    sample_temperature: of 'answers'.
    sample_top_p: of 'answers'.
    length_edges: of 'length_buckets': the most words of each but the last.
  """

  every: int = _at_least(0, 0)
  examples: int = _at_least(256, 0)
  test_examples: int = _at_least(0, 0)
  split: str = 'validation'
  test_split: str = 'test'
  metrics: tuple[str, ...] = _names()
  batch_size: int = _at_least(64, 1)
  temperature: float = _at_least(0.0, 0.0)
  beams: int = _at_least(1, 1)
  length_penalty: float = 1.0
  samples: int = _at_least(3, 0)
  browse: int = _at_least(100, 0)
  references: bool = True
  divergences: bool = True
  texts: str = ''
  analyses: tuple[str, ...] = _names()
  samples_per_prompt: int = _at_least(5, 1)
  temperatures: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 1.0)
  sample_temperature: float = _within(0.6, 0, math.inf, '()')
  sample_top_p: float = _within(0.95, 0, 1, '(]')
  length_edges: tuple[int, ...] = (5, 10)


@dataclasses.dataclass(frozen=True)
class Generation:
  """What `--mode=generate` writes.

  Attributes:
    model: who responds.
    split: to whose prompts.
    shard_size: responses a file.
    batch_size: prompts decoded at a time.
    temperature: 0 is greedy.
    top_k: of sampling.
    top_p: of sampling.
    draft_tokens: how many the student drafts at a time for the teacher (0:
      none); see `sampling.speculate`.
    beams: above 1, beam search.
    length_penalty: of beam search.
    top_logprobs: how many of the likeliest tokens are written beside each token
      of a teacher's response, with their log-probabilities at temperature 1
      and that of all others together (0: none): `6 k + 4` bytes a token, and a
      shard of them in memory.
  """

  model: str = _choice('teacher', 'teacher', 'student')
  split: str = 'train'
  shard_size: int = _at_least(4096, 1)
  batch_size: int = _at_least(64, 1)
  temperature: float = _at_least(0.0, 0.0)
  top_k: int = _at_least(0, 0)
  top_p: float = _within(1.0, 0, 1, '(]')
  draft_tokens: int = _at_least(0, 0)
  beams: int = _at_least(1, 1)
  length_penalty: float = 1.0
  top_logprobs: int = _at_least(0, 0)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """When checkpoints are written, and which are kept.

  Attributes:
    every: steps between them.
    keep_last: how many of the latest.
    keep_best: how many of the best beside them.
    best_metric: a metric of the evaluations; empty for the task's first.
    best_mode: whether more or less of it is better.
    export: which parameters become the student: the last or the best.
  """

  every: int = _at_least(1000, 1)
  keep_last: int = _at_least(2, 1)
  keep_best: int = _at_least(1, 0)
  best_metric: str = ''
  best_mode: str = _choice('max', 'max', 'min')
  export: str = _choice('last', 'last', 'best')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How devices are arranged; -1 takes what is left."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that a run is made of.

  Attributes:
    seed: with the step, determines everything random.
    steps: batches, each with `updates_per_rollout` updates.
    batch_size: rows of a batch, over all hosts.
    micro_batch_size: prompts whose gradients are computed at a time (0: all).
    chunk_size: tokens whose logits are held at a time (0: as many as
      `losses.chunks` has room for).
    max_skipped: consecutive non-finite updates after which a run stops.
    log_every: steps between lines of metrics.
    time_phases: time sampling, scoring and learning one by one, each waited
      for: slower, and a line of metrics says where the time goes.
    profile: steps to trace into `<workdir>/profile`, such as '100' or
      '100-104'; see `config.profiled`.
    share_programs: runs that differ in weights, losses' arguments or
      temperatures alone share what is compiled, for a step that is some per
      cent slower. The runs of a sweep are told where that pays.
    updates_per_rollout: updates on each batch of responses.
    rollout_ahead: sample the rollouts of the next step while this one learns:
      they are by parameters one step old.
    behaviour_sync: steps between copies of the student into the policy that
      rollouts are sampled from (0: the student itself).
    replay_size: how many of the student's responses to each task are kept, for
      terms that draw from 'replay'. Every device holds all of them.
    teacher_mix: α, where rollouts are sampled from αp + (1 - α)q.
    recipe: `name`, and the arguments of that function of `recipes`.
    task: the main task.
    tasks: further ones by name, for the terms that read them. What they leave
      out of lengths, vocabulary and padding is the main task's.
    student: trains.
    teacher: is learned from.
    reference: what a policy is kept near; by default the student as it starts.
    reward: a reward model, whose directory holds auxiliary.safetensors.
    sampling: of the student's rollouts.
    teacher_sampling: of a teacher that responds online.
    optimizer: of the student.
    auxiliary_optimizer: of the parameters that terms have of their own.
  """

  seed: int = _at_least(0, 0)
  steps: int = _at_least(1000, 1)
  batch_size: int = _at_least(32, 1)
  micro_batch_size: int = _at_least(0, 0)
  chunk_size: int = _at_least(0, 0)
  max_skipped: int = _at_least(10, 1)
  log_every: int = _at_least(20, 1)
  time_phases: bool = False
  profile: str = ''
  share_programs: bool = False
  updates_per_rollout: int = _at_least(1, 1)
  rollout_ahead: bool = False
  behaviour_sync: int = _at_least(0, 0)
  replay_size: int = _at_least(0, 0)
  teacher_mix: float = _within(0.0, 0, 1, '[)')
  recipe: Mapping[str, Any] = _section()
  task: Task = Task()
  tasks: Mapping[str, Task] = _section()
  student: Model = Model()
  teacher: Model = Model()
  reference: Model = Model()
  reward: Model = Model()
  sampling: Sampling = Sampling()
  teacher_sampling: TeacherSampling = TeacherSampling()
  optimizer: Optimizer = Optimizer()
  auxiliary_optimizer: Optimizer = Optimizer()
  eval: Evaluation = Evaluation()
  generate: Generation = Generation()
  checkpoint: Checkpoint = Checkpoint()
  mesh: Mesh = Mesh()
