"""Two language models as one whose next-token distribution is their mixture."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api


@types.struct
class MixtureState:
  """Both models' decode states."""

  a: api.DecodeState
  b: api.DecodeState

  def take(self, rows: jax.Array) -> 'MixtureState':
    """Re-gathers batch rows: row i becomes `rows[i]`."""
    return MixtureState(self.a.take(rows), self.b.take(rows))

  def rewind(self, lengths: jax.Array) -> 'MixtureState':
    """Keeps the first `lengths[b]` response tokens of every row."""
    return MixtureState(self.a.rewind(lengths), self.b.rewind(lengths))

  @property
  def narrow(self) -> Callable[[int], 'MixtureState']:
    """Cuts both models' room; missing where either state has no `narrow`."""
    a, b = self.a.narrow, self.b.narrow
    return lambda length: MixtureState(a(length), b(length))


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The mixture of two models as a `LanguageModel` (see `mixture`)."""

  a: api.LanguageModel
  b: api.LanguageModel
  weight: float

  def __post_init__(self):
    if not 0 <= self.weight <= 1:
      raise ValueError(
        f'weight is {self.weight}; it must be from 0 (only b) to 1 (only a).'
      )

  @property
  def vocab_size(self) -> int:
    return min(self.a.num_tokens, self.b.num_tokens)

  @property
  def num_tokens(self) -> int:
    return self.vocab_size

  @property
  def eos_ids(self) -> tuple[int, ...]:
    return self.a.eos_ids

  @property
  def pad_id(self) -> int:
    return self.a.pad_id

  @property
  def max_positions(self) -> int | None:
    limits = self.a.max_positions, self.b.max_positions
    return min((n for n in limits if n is not None), default=None)

  def hidden_states(
    self, params, prompt, response_tokens, *, dropout_key=None, capture=()
  ) -> Any:
    """Returns the pair of hidden states, [B, T, D_a] and [B, T, D_b].

    With `capture`, also the pair of what was captured.
    """
    keys = (None, None)
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    found = tuple(
      model.hidden_states(
        p, x, response_tokens, dropout_key=key, capture=capture
      )
      for model, p, x, key in zip((self.a, self.b), params, prompt, keys)
    )
    return tuple(zip(*found)) if capture else found

  def output_head(self, params) -> NoReturn:
    """Raises NotImplementedError: a mixture isn't a projection of anything."""
    raise NotImplementedError(
      'a mixture of two models has no output projection. Call '
      'head(params, hidden), which returns its log-probabilities, or '
      "output_head on either model's own parameters."
    )

  def head(self, params, hidden) -> jax.Array:
    """Returns float32 log-probabilities [..., V] of a pair of hidden states."""
    return self._mix(
      self.a.head(params[0], hidden[0]), self.b.head(params[1], hidden[1])
    )

  def prefill(self, params, prompt, max_new_tokens):
    """Returns log-probabilities [B, V] for `response[:, 0]`, and the state."""
    first, a = self.a.prefill(params[0], prompt[0], max_new_tokens)
    second, b = self.b.prefill(params[1], prompt[1], max_new_tokens)
    return self._mix(first, second), MixtureState(a, b)

  def decode(self, params, state, tokens):
    """Reads tokens [B, N]; returns log-probabilities [B, N, V] of the next."""
    first, a = self.a.decode(params[0], state.a, tokens)
    second, b = self.b.decode(params[1], state.b, tokens)
    return self._mix(first, second), MixtureState(a, b)

  def _mix(self, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns log(w softmax(first) + (1 - w) softmax(second)), [..., V]."""
    first, second = (
      jax.nn.log_softmax(logits[..., : self.vocab_size].astype(jnp.float32))
      for logits in (first, second)
    )
    if self.weight in (0, 1):
      return first if self.weight else second
    first += math.log(self.weight)
    second += math.log1p(-self.weight)
    # Where neither has mass, logaddexp's gradient would be NaN.
    some = jnp.maximum(first, second) > -jnp.inf
    first, second = (jnp.where(some, x, 0.0) for x in (first, second))
    return jnp.where(some, jnp.logaddexp(first, second), -jnp.inf)


def mixture(
  a: api.LanguageModel, b: api.LanguageModel, weight: float
) -> Mixture:
  """Returns a model that says what `a` would with chance `weight`, else `b`.

  p(y_t | x, y_<t) = w p_a(y_t | x_a, y_<t) + (1 - w) p_b(y_t | x_b, y_<t): a
  coin at every token, which both models then read. With a teacher as `a` and
  a student as `b` it is MiniLLM's teacher-mixed sampling.

  A language model like any other, but for this: its params, prompts and hidden
  states are pairs, a's and b's; what it calls logits are log-probabilities; it
  has no `output_head`; and its vocabulary is what both know, the smaller
  `num_tokens`: either softmax is taken over those alone.

  >>> from kdjax import testing
  >>> a, params_a = testing.tabular(jax.random.key(0))
  >>> b, params_b = testing.tabular(jax.random.key(1))
  >>> model = mixture(a, b, 0.2)
  >>> prompt = types.Prompt(jnp.array([[3]]), jnp.array([[True]]))
  >>> params, prompts = (params_a, params_b), (prompt, prompt)
  >>> print(api.logprobs(model, params, prompts, jnp.array([[2, 1]])).shape)
  (1, 2)

  Args:
    a: says what ends a response (`eos_ids`) and what pads it (`pad_id`).
    b: another model, of the same tokenizer.
    weight: w, in [0, 1].

  Raises:
    ValueError: if the weight is not in [0, 1].

  References:
    Gu et al., 2024 (MiniLLM), https://arxiv.org/abs/2306.08543, section 2.2
    (weight 0.2).
  """
  return Mixture(a, b, float(weight))
