"""Rewards of the caller's: functions over texts, or of arrays.

A text reward is a function

    reward(prompts, responses, references) -> one number a response

of three equally long lists: two of texts, and one of the tuples of acceptable
texts (empty for unlabelled prompts). It runs on the host, between a rollout and
its update. It may also return one number a token, [R, T], 0 after the last.

A config names one of `TEXT_REWARDS`, any metric of `kdjax.evaluation` (each
response's own score, from 0 to 1), or 'module:function' for one of your own.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kdjax import types
from kdjax import values as _values
from kdjax.evaluation import text

TextReward = Callable[
  [Sequence[str], Sequence[str], Sequence[tuple[str, ...]]], Any
]


@dataclasses.dataclass(frozen=True)
class Traced:
  """A reward that is a function of arrays, compiled with the step.

  Attributes:
    function: (types.Prompt, types.Response) -> [R] or [R, T], jittable.
  """

  function: Callable[[types.Prompt, types.Response], jax.Array]


def think_format(prompts, responses, references) -> list[float]:
  """1 for `<think>...</think><answer>...</answer>` and nothing else (R1)."""
  del prompts, references
  pattern = r'\s*<think>.+?</think>\s*<answer>.+?</answer>\s*'
  return [float(bool(re.fullmatch(pattern, r, re.S))) for r in responses]


def brevity(prompts, responses, references) -> list[float]:
  """-1 for each character beyond the longest reference, over its length."""
  del prompts
  longest = [max((len(t) for t in texts), default=1) for texts in references]
  return [-max(len(r) - n, 0) / max(n, 1) for r, n in zip(responses, longest)]


TEXT_REWARDS: dict[str, TextReward] = {
  'think_format': think_format,
  'brevity': brevity,
}


def metric_reward(name: str) -> TextReward:
  """Returns each response's own score under a metric, from 0 to 1.

  Metrics of which less is better count negatively.
  """
  sign = -1.0 if name in text.LOWER_IS_BETTER else 1.0

  def reward(prompts, responses, references):
    # Some metrics refuse a response without references.
    texts = [each or ('',) for each in references]
    scores = text.score(name, responses, texts, inputs=prompts)
    return sign * scores.per_example / 100.0

  return reward


def get(name: str) -> TextReward | Traced:
  """Returns a reward by its name, or by 'module:function'.

  Raises:
    ValueError: there is no such reward.
  """
  if name in TEXT_REWARDS:
    return TEXT_REWARDS[name]
  if name in text.METRICS:
    text.check_names([name])
    return metric_reward(name)
  module, colon, attribute = name.partition(':')
  if not colon:
    known = sorted([*TEXT_REWARDS, *text.METRICS])
    raise ValueError(
      f"reward={name!r}: known are {known}, or 'module:function' for your own"
    )
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (Exception, SystemExit) as error:  # a module may do anything
    raise ValueError(
      f'reward={name!r} cannot be imported: {type(error).__name__}: {error}'
    ) from error
  if not callable(found) and not isinstance(found, Traced):
    raise ValueError(f'reward={name!r} is {found!r}: expected a function')
  return found


def judge(
  name: str,
  reward: TextReward,
  prompts: Sequence[str],
  responses: Sequence[str],
  references: Sequence[tuple[str, ...]],
  width: int | None = None,
  ids: Sequence[int] | None = None,
) -> np.ndarray:
  """Calls a text reward and checks what it returns.

  Args:
    name: of the reward.
    reward: the function.
    prompts: R texts.
    responses: R texts.
    references: R tuples of texts.
    width: T of the responses; None where there are no tokens yet.
    ids: of the R examples, where they are known.

  Returns:
    [R] or [R, T] float32.

  Raises:
    ValueError: naming the reward, and the example if one is at fault.
  """
  found = reward(prompts, responses, references)
  try:
    values = np.asarray(found)
  # Lists of several lengths, tensors of which gradients are wanted.
  except (ValueError, TypeError, RuntimeError) as error:
    raise ValueError(f'reward {name!r} returned no array: {error}') from error
  if values.dtype.kind not in 'biuf':
    raise ValueError(
      f'reward {name!r} returned {values.dtype} values; it must return one '
      'number a response'
    )
  shapes = [(len(responses),)] + ([(len(responses), width)] if width else [])
  if values.shape not in shapes:
    raise ValueError(
      f'reward {name!r} returned the shape {values.shape} for '
      f'{len(responses)} responses, not {" or ".join(map(str, shapes))}: it '
      'must return one number a response'
    )
  with np.errstate(over='ignore'):
    narrow = values.astype(np.float32)
  bad = ~np.isfinite(narrow.reshape(len(responses), -1)).all(-1)
  if bad.any():
    i = int(np.argmax(bad))
    example = '' if ids is None else f'example {ids[i]}, '
    said, asked = (_values.shown(each[i]) for each in (responses, prompts))
    raise ValueError(
      f'reward {name!r} is {values[i]} for {example}the response {said} to '
      f'{asked}: it must be finite as float32; {int(bad.sum())} of {bad.size} '
      'are not'
    )
  return narrow
