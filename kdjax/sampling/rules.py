"""What a response may hold and where it ends, checked before any tracing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import api


@dataclasses.dataclass(frozen=True)
class Rules:
  """The static settings that sampling and search share. Hashable.

  Attributes:
    max_new_tokens: T.
    min_new_tokens: no response ends before it has this many tokens.
    eos_ids: ids that end a response; empty if only T does.
    pad_id: fills the positions after the end.
    forbidden_ids: ids never produced, apart from padded vocabulary rows.
    num_tokens: ids at and above this are padded vocabulary rows.
  """

  max_new_tokens: int
  min_new_tokens: int
  eos_ids: tuple[int, ...]
  pad_id: int
  forbidden_ids: tuple[int, ...]
  num_tokens: int

  def forbid(self, logits: jax.Array, step: jax.Array | int) -> jax.Array:
    """Sets logits [..., V] of what may not stand at position `step` to -inf."""
    never = np.arange(logits.shape[-1]) >= self.num_tokens
    never[list(self.forbidden_ids)] = True
    if never.any():
      logits = jnp.where(_like(never, logits), -jnp.inf, logits)
    if self.min_new_tokens and self.eos_ids:
      ends = np.isin(np.arange(logits.shape[-1]), self.eos_ids)
      early = _like(ends, logits) & (step < self.min_new_tokens)
      logits = jnp.where(early, -jnp.inf, logits)
    return logits

  def ends(self, tokens: jax.Array) -> jax.Array:
    """Returns, in the shape of `tokens`, whether each ends its response."""
    return jnp.isin(tokens, jnp.array(self.eos_ids, jnp.int32))


def _like(ids: np.ndarray, logits: jax.Array) -> jax.Array:
  return jnp.broadcast_to(ids, logits.shape)


def resolve(
  model: api.LanguageModel,
  prompt: Any,
  *,
  max_new_tokens: int,
  min_new_tokens: int,
  eos_id: int | Sequence[int] | None,
  pad_id: int | None,
  suppress_ids: Sequence[int],
) -> Rules:
  """Fills in the model's defaults and checks every value.

  Raises:
    ValueError: naming the value, what was expected and the way out.
  """
  if eos_id is None:
    eos_id = model.eos_ids
  elif isinstance(eos_id, int | np.integer):
    eos_id = (eos_id,)
  rules = Rules(
    max_new_tokens=int(max_new_tokens),
    min_new_tokens=int(min_new_tokens),
    eos_ids=tuple(sorted({int(i) for i in eos_id})),
    pad_id=int(model.pad_id if pad_id is None else pad_id),
    forbidden_ids=tuple(sorted({int(i) for i in suppress_ids})),
    num_tokens=model.num_tokens,
  )
  _check_lengths(model, prompt, rules)
  _check_ids(model, rules)
  return rules


def _check_lengths(model: api.LanguageModel, prompt: Any, rules: Rules) -> None:
  if rules.max_new_tokens < 1:
    raise ValueError(
      f'max_new_tokens is {rules.max_new_tokens}; it must be 1 or more.'
    )
  if not 0 <= rules.min_new_tokens <= rules.max_new_tokens:
    raise ValueError(
      f'min_new_tokens is {rules.min_new_tokens}; it must lie between 0 and '
      f'max_new_tokens ({rules.max_new_tokens}).'
    )
  if model.max_positions is None:
    return
  # A model may read several prompts at once (a mixture reads a pair).
  width = max(leaf.shape[1] for leaf in jax.tree.leaves(prompt))
  if width + rules.max_new_tokens > model.max_positions:
    raise ValueError(
      f'A prompt of {width} positions and max_new_tokens='
      f'{rules.max_new_tokens} exceed the {model.max_positions} positions of '
      'the model. Cut the prompt (padding counts) to '
      f'{max(model.max_positions - rules.max_new_tokens, 0)} or set '
      f'max_new_tokens to {max(model.max_positions - width, 0)} or less.'
    )


def _check_ids(model: api.LanguageModel, rules: Rules) -> None:
  for name, ids in (
    ('eos_id', rules.eos_ids),
    ('pad_id', (rules.pad_id,)),
    ('suppress_ids', rules.forbidden_ids),
  ):
    outside = [i for i in ids if not 0 <= i < model.vocab_size]
    if outside:
      raise ValueError(
        f'{name} holds {outside}, outside the vocabulary of '
        f'{model.vocab_size} ids. Was it made for another tokenizer?'
      )
  closed = set(rules.forbidden_ids)
  if rules.min_new_tokens:
    closed |= set(rules.eos_ids)
  if len([i for i in closed if i < rules.num_tokens]) == rules.num_tokens:
    raise ValueError(
      f'suppress_ids (with eos_id, as min_new_tokens is '
      f'{rules.min_new_tokens}) forbids all {rules.num_tokens} tokens of the '
      'model. Leave at least one.'
    )
