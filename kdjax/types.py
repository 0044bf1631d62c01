"""The structs that modules pass to each other.

Shape letters, everywhere in kdjax: B batch, S prompt tokens, T response
tokens, V vocabulary, D width, L layers, N heads, K key-value heads, H head
size.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

# The mesh's axes (see `partitioning.make_mesh`), and those of them over which
# the rows of a batch are split.
MESH_AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')


def struct(cls):
  """Makes `cls` a frozen dataclass that is a pytree.

  Fields declared with `static_field` are part of the tree's structure (hashed
  by `jax.jit`); all others are children.
  """
  cls = dataclasses.dataclass(frozen=True)(cls)
  fields = dataclasses.fields(cls)
  static = [f.name for f in fields if f.metadata.get('static')]
  dynamic = [f.name for f in fields if not f.metadata.get('static')]
  return jax.tree_util.register_dataclass(cls, dynamic, static)


def static_field(**kwargs) -> Any:
  """A dataclass field that belongs to the pytree's structure."""
  return dataclasses.field(metadata={'static': True}, **kwargs)


@struct
class Prompt:
  """What the model is conditioned on.

  Attributes:
    tokens: [B, S] int32.
    mask: [B, S] bool, True on real tokens. Padding may stand on either side.
  """

  tokens: jax.Array
  mask: jax.Array


@struct
class TopK:
  """The likeliest next tokens of a distribution, and the mass of the others.

  Attributes:
    ids: [..., k] int32, the likeliest first.
    logprobs: [..., k] float32, of the softmax over the whole vocabulary at
      temperature 1.
    tail: [...] float32, the logarithm of the mass that they leave; -inf where
      they are the whole vocabulary.
  """

  ids: jax.Array
  logprobs: jax.Array
  tail: jax.Array


@struct
class Response:
  """What the model said, or should say.

  Attributes:
    tokens: [B, T] int32.
    mask: [B, T] bool, True through the first end-of-sequence token, that one
      included. Carried, never rebuilt from `tokens != pad`: in T5 the decoder
      start is the pad token, in GPT-2 padding is the end-of-sequence token.
    sampling_logprobs: [B, T] float32 or None: log-probability of each token
      under the distribution really sampled from (tempered, truncated); 0 where
      decoding was greedy.
    policy_logprobs: [B, T] float32 or None: log-probability of each token under
      the full softmax at temperature 1.
    teacher: [B, T], what the teacher made of each token, or None where it isn't
      cached.
    asked: the prompts that the rows answer, or None where they are those of the
      batch.
  """

  tokens: jax.Array
  mask: jax.Array
  sampling_logprobs: jax.Array | None = None
  policy_logprobs: jax.Array | None = None
  teacher: TopK | None = None
  asked: 'Batch | None' = None


@struct
class Batch:
  """A batch of examples, as the data pipeline yields it.

  Attributes:
    prompt: what the student reads.
    teacher_prompts: what the teacher reads, where that differs: a tuple of
      prompts, else None (the student's prompt).
    responses: responses by source name ('data', 'teacher', 'rejected'); empty
      for unlabelled data.
    example_id: [B] int32, the example's index in its dataset. It selects the
      random numbers of the row, so that batch composition changes no sample.
    references: the lists of acceptable texts of the rows that this process
      reads, on the host only (None inside jitted functions).
    tasks: batches of other tasks by name, for terms that read them.
  """

  prompt: Prompt
  teacher_prompts: tuple[Prompt, ...] | None = None
  responses: dict[str, Response] = dataclasses.field(default_factory=dict)
  example_id: jax.Array | None = None
  references: Any = None
  tasks: dict[str, 'Batch'] = dataclasses.field(default_factory=dict)

  @property
  def read_by_teacher(self) -> tuple[Prompt, ...]:
    """The teacher's own prompts, or the student's; losses read the first."""
    return self.teacher_prompts or (self.prompt,)


@struct
class Head:
  """A language model's output projection.

  Attributes:
    kernel: [D, V].
    bias: [V] or None.
    scale: multiplies the product (T5 v1.0 scales by D ** -0.5).
    softcap: c in `c * tanh(logits / c)`, or None.
    tied: whether the kernel is the transpose of an embedding table, which says
      how it lies in memory.
  """

  kernel: jax.Array
  bias: jax.Array | None = None
  scale: float = static_field(default=1.0)
  softcap: float | None = static_field(default=None)
  tied: bool = static_field(default=False)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Returns softcap(scale * hidden @ kernel + bias), float32 [..., V]."""
    logits = jnp.einsum(
      '...d,dv->...v',
      hidden,
      self.kernel.astype(hidden.dtype),
      preferred_element_type=jnp.float32,
    )
    logits = logits * self.scale
    if self.bias is not None:
      logits = logits + self.bias.astype(jnp.float32)
    if self.softcap is not None:
      logits = self.softcap * jnp.tanh(logits / self.softcap)
    return logits

  def first(self, count: int) -> 'Head':
    """Returns the head of the first `count` tokens of the vocabulary."""
    if count >= self.kernel.shape[1]:
      return self
    bias = None if self.bias is None else self.bias[:count]
    return dataclasses.replace(self, kernel=self.kernel[:, :count], bias=bias)
