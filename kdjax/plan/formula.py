"""The FLOPs of a step by its models' sizes, to hold the counted ones against.

Of matrix products alone, 2 FLOPs a multiply-add. With D width, F the MLP's, I
heads times head size, K the same of key-value heads, V vocabulary, S prompt and
T response tokens:

  weights a layer  W = 2 D I + 2 D K + m D F     m = 3 where gated, else 2
  N tokens that look at C                        2 W N + 4 I N C
  decoder with an encoder behind it              + 4 D I N + 4 I N S, and once
                                                 4 D I S, its keys and values
  output head                                    2 D V a token

Masked pairs of queries and keys count: they are computed. A backward pass is
two forward ones; remat adds one, without each layer's last matrix, whose
product no gradient needs. Of a student with low-rank factors the backward pass
is one: what doesn't train has no gradient. Heads aren't recomputed.

A chip's share is the total over all chips: more than that counted is work that
several of them do alike, and tokens that pad.
"""

import dataclasses

from kdjax import feed
from kdjax.models import api
from kdjax.plan.job import Job
from kdjax.sampling import loop


@dataclasses.dataclass(frozen=True)
class Shape:
  """A model's sizes, of either family; L encoder layers 0 in decoder-only."""

  width: int
  mlp: int
  inner: int
  keys: int
  decoder_layers: int
  encoder_layers: int
  gated: bool
  head: int
  vocabulary: int

  @property
  def layer(self) -> int:
    """W, the weights of a layer without cross-attention."""
    attention = 2 * self.width * (self.inner + self.keys)
    return attention + (2 + self.gated) * self.width * self.mlp

  def tokens(self, count: float, seen: float) -> float:
    """A layer on tokens that look at `seen` each."""
    return 2 * self.layer * count + 4 * self.inner * count * seen

  def cross(self, count: float, prompt: int) -> float:
    """A decoder layer's cross-attention; its keys and values not."""
    width = self.width * self.inner
    return 4 * width * count + 4 * self.inner * count * prompt

  def encode(self, prompt: int) -> float:
    """The encoder, and all keys and values of what it returns."""
    own = self.encoder_layers * self.tokens(prompt, prompt)
    return own + self.decoder_layers * 4 * self.width * self.inner * prompt

  def forward(self, prompt: int, response: int) -> float:
    """Hidden states of one response, teacher-forced."""
    if not self.encoder_layers:
      count = prompt + response - 1
      return self.decoder_layers * self.tokens(count, count)
    layer = self.tokens(response, response) + self.cross(response, prompt)
    return self.encode(prompt) + self.decoder_layers * layer

  def recomputed(self, prompt: int, response: int) -> float:
    """What remat adds to the backward pass."""
    last = 2 * self.width * self.mlp
    if not self.encoder_layers:
      skipped = self.decoder_layers * (prompt + response - 1)
    else:
      skipped = self.encoder_layers * prompt + self.decoder_layers * response
    return self.forward(prompt, response) - last * skipped

  def logits(self, count: float) -> float:
    """The output head on some tokens."""
    return 2 * self.head * self.vocabulary * count

  def prefill(self, prompt: int) -> float:
    """Reads a prompt, up to the logits of the first token."""
    if self.encoder_layers:
      start = self.tokens(1, 1) + self.cross(1, prompt)
      return self.encode(prompt) + self.decoder_layers * start + self.logits(1)
    return self.decoder_layers * self.tokens(prompt, prompt) + self.logits(1)

  def decode(self, prompt: int, capacities: list[int]) -> float:
    """A token a capacity, each of which looks at that many slots."""
    total = 0.0
    for room in capacities:
      if self.encoder_layers:
        layer = self.tokens(1, room) + self.cross(1, prompt)
      else:
        layer = self.tokens(1, prompt + room)
      total += self.decoder_layers * layer + self.logits(1)
    return total

  def generate(
    self, prompt: int, response: int, samples: int = 1, block: int = 8
  ) -> float:
    """Samples responses to one prompt, all of them to the last token."""
    parts = loop.cut(response, 1, block, False)
    rooms = [
      next(end for end in parts.ends if position < end)
      for position in range(1, parts.ends[-1])
    ]
    return self.prefill(prompt) + samples * self.decode(prompt, rooms)


def shape(model: api.LanguageModel, num_tokens: int | None = None) -> Shape:
  """Returns a model's sizes; V as much of its vocabulary as is used."""
  c = model.config
  inner = c.heads * c.head_size
  return Shape(
    width=c.width,
    mlp=c.mlp_width,
    inner=inner,
    keys=getattr(c, 'kv_heads', c.heads) * c.head_size,
    decoder_layers=getattr(c, 'layers', 0) or c.decoder_layers,
    encoder_layers=getattr(c, 'encoder_layers', 0),
    gated=c.gated_mlp,
    head=getattr(c, 'embedding_width', None) or c.width,
    vocabulary=num_tokens or c.vocab_size,
  )


def rollout(job: Job) -> float:
  """Returns the FLOPs of a step's sampling, over all chips."""
  c, settings = job.config, job.settings
  total, goal = 0.0, job.run.objective
  student = shape(settings.student)
  for name in goal.tasks():
    task = c.tasks[name] if name else c.task
    lengths = task.max_prompt_tokens, settings.max_new_tokens
    for source in goal.sampled(name) if job.rows else ():
      samples = 1 if source == 'greedy' else settings.samples
      options = {'samples': samples, 'block': c.sampling.block}
      total += job.rows * student.generate(*lengths, **options)
      if settings.teacher_mix and source != 'greedy':
        teacher = shape(settings.teacher)
        total += job.rows * teacher.generate(*lengths, **options)
    if name in feed.online(c, goal):
      teacher = shape(settings.teacher)
      block = c.teacher_sampling.block
      total += c.batch_size * teacher.generate(*lengths, block=block)
  return total


def update(job: Job) -> float:
  """Returns the FLOPs of a step's scoring and learning, over all chips."""
  c, settings = job.config, job.settings
  goal, count = job.run.objective, settings.num_tokens
  student = shape(settings.student, count)
  model = settings.student.config
  learned = 2 if c.student.lora.rank else 3
  total = 0.0
  for draw in goal.draws():
    task = c.tasks[draw.task] if draw.task else c.task
    rows, response = _rows(job, draw), task.max_response_tokens
    needs = goal.needs(draw)
    if 'teacher' in needs:
      asked = task.max_teacher_prompt_tokens if task.teacher_prompts else 0
      teacher = shape(settings.teacher, count)
      asked = asked or task.max_prompt_tokens
      total += rows * teacher.forward(asked, response)
    if 'reference' in needs:
      forward = student.forward(task.max_prompt_tokens, response)
      total += rows * (forward + student.logits(response))
  for draw in goal.views():
    task = c.tasks[draw.task] if draw.task else c.task
    prompt, response = task.max_prompt_tokens, task.max_response_tokens
    one = learned * student.forward(prompt, response)
    if model.remat and model.remat_policy == 'nothing':
      one += student.recomputed(prompt, response)
    one += 3 * student.logits(response)
    if 'teacher' in goal.needs(draw):
      teacher = shape(settings.teacher, count)
      both = teacher.logits(response) + student.logits(response)
      one += teacher.logits(response) + both / settings.measure_every
    elif 'top_k' in goal.needs(draw):
      one += student.logits(response) / settings.measure_every
    total += settings.updates_per_rollout * _rows(job, draw) * one
  return total


def _rows(job: Job, draw) -> int:
  """Returns how many responses a draw has."""
  alone = len(draw.mixture()) == 1 and draw.sampled == 'student'
  samples = job.settings.samples if alone and not draw.rank else 1
  return job.config.batch_size * samples
