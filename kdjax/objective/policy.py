"""Policy gradients: rewards to advantages, advantages to values a token."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.objective.loss import Loss
from kdjax.objective.readings import Target, View
from kdjax.objective.specs import Option

BASELINES = (
  'none',
  'mean',
  'whiten',
  'group',
  'group_mean',
  'greedy',
  'teacher',
)

# Baselines of whole responses to one prompt.
GROUPED = ('group', 'group_mean')

# Rewards to advantages, alike in all policy gradients.
_RETURNS = {
  'reward_scale': Option(1.0, above=0.0),
  'reward_clip': Option(None, above=0.0),
  'discount': Option(1.0, low=0.0, high=1.0),
  'length_normalized': Option(False),
  'future_only': Option(False),
  'sparse': Option(False),
  'baseline': Option('none', choices=BASELINES),
}


def target(
  views: tuple[View, ...],
  *,
  reward: str,
  group: int,
  reward_scale: Any = 1.0,
  reward_clip: Any = None,
  discount: Any = 1.0,
  length_normalized: bool = False,
  future_only: bool = False,
  sparse: bool = False,
  baseline: str = 'none',
  **unused: Any,
) -> Target:
  """Returns the advantages [R, T] of the sampled tokens.

  Each token's reward is divided by `reward_scale` and clipped to
  ±`reward_clip`; `sparse` defers all of it to the last token (LMReward). Then
  A_t = Σ_{t' >= t} discount^(t' - t) r_t' - b, with the baseline b

    none        0
    mean        the mean return of the batch's other responses
    whiten      of the whole batch's advantages: mean 0, variance 1 (MiniLLM)
    group       of the prompt's samples: mean 0, standard deviation 1 (GRPO)
    group_mean  of the prompt's samples: mean 0
    greedy      the return of the student's greedy response (self-critical)
    teacher     Σ_v p(v) f(v) of the teacher's centred logits f (LMReward)

  `group` and `group_mean` are of whole responses: one advantage for all tokens,
  from the plain sum of the rewards. So is the return that `greedy` subtracts.

  Args:
    views: the sampled responses; with 'greedy', also the greedy ones.
    reward: name of the reward.
    group: samples a prompt.
    reward_scale: see above.
    reward_clip: see above; None for none.
    discount: γ.
    length_normalized: divides each return by the tokens that remain.
    future_only: leaves out the token's own reward: G_{t+1} for G_t, where its
      own step is differentiated exactly (MiniLLM).
    sparse: see above. The teacher's baseline is still each token's own, where
      LMReward's code takes the first one's for all.
    baseline: see above.
    **unused: what the loss itself takes.
  """
  mask = views[0].response.mask

  def shaped(view):
    kept, rewards = view.response.mask, view.rewards[reward] / reward_scale
    if reward_clip is not None:
      rewards = jnp.clip(rewards, -reward_clip, reward_clip)
    rewards = jnp.where(kept, rewards, 0.0)
    return losses.sparse_reward(rewards, kept) if sparse else rewards

  rewards = shaped(views[0])
  if baseline in GROUPED:
    scaled = baseline == 'group'
    each = losses.group_advantages(rewards.sum(-1), group, scale=scaled)
    return Target(mask, jnp.where(mask, each[:, None], 0.0))
  returns = losses.reward_to_go(
    rewards, mask, discount, length_normalized=length_normalized
  )
  if future_only:
    returns = jnp.pad(returns, ((0, 0), (0, 1)))[:, 1:]
  if baseline == 'mean':
    returns -= _others(returns[:, 0], mask.any(-1))[:, None]
  elif baseline == 'whiten':
    returns = losses.whiten(returns, mask)
  elif baseline == 'greedy':
    greedy = shaped(views[1]).sum(-1)
    samples = returns.shape[0] // greedy.shape[0]
    returns -= jnp.repeat(greedy, samples)[:, None]
  elif baseline == 'teacher':
    returns -= views[0].rewards['teacher_baseline'] / reward_scale
  return Target(mask, jnp.where(mask, returns, 0.0))


def _others(returns: jax.Array, valid: jax.Array) -> jax.Array:
  """The mean return of the other rows [R], independent of a row's own."""
  kept = jnp.where(valid, returns, 0.0)
  others = jnp.sum(valid) - valid
  return (jnp.sum(kept) - kept) / jnp.maximum(others, 1)


def _policy_gradient(readings, target, params, *, importance, clip, **unused):
  (reading,) = readings
  behaviour = reading.view.response.sampling_logprobs if importance else None
  values = losses.policy_gradient(
    reading.logprobs,
    target.values,
    behaviour_logprobs=behaviour,
    clip=clip,
  )
  if behaviour is None:
    return values
  # As far as the loss itself follows it.
  ratio = jnp.exp(jnp.minimum(reading.logprobs - behaviour, 20.0))
  return values, {'ratio': ratio}


def _weighted_reinforce(readings, target, params, *, return_clip, **unused):
  (reading,) = readings
  return losses.weighted_reinforce(
    reading.logprobs,
    target.values,
    behaviour_logprobs=reading.view.response.sampling_logprobs,
    return_clip=return_clip,
  )


def _problems(args: Mapping[str, Any]) -> list[str]:
  """What is wrong with arguments that are right one by one."""
  found, baseline = [], args['baseline']
  if baseline in (*GROUPED, 'greedy'):
    plain = {'discount': 1.0, 'length_normalized': False, 'future_only': False}
    changed = [name for name, value in plain.items() if args[name] != value]
    if changed:
      found.append(
        f'loss_args.baseline={baseline!r} compares whole responses: leave out '
        f'{changed}, or choose another baseline'
      )
  if args.get('clip') is not None and not args.get('importance', True):
    found.append(
      'loss_args.clip bounds the ratio to the policy that was sampled from: '
      'set importance=True with it'
    )
  return found


def _needs(always: set[str], **args: Any) -> set[str]:
  return always | ({'samples'} if args.get('importance', True) else set())


LOSSES: dict[str, Loss] = {
  'policy_gradient': Loss(
    _policy_gradient,
    {
      **_RETURNS,
      'importance': Option(True),
      'clip': Option(None, above=0.0),
    },
    needs=functools.partial(_needs, {'reward'}),
    tokenwise=True,
    target=target,
    problems=_problems,
  ),
  'weighted_reinforce': Loss(
    _weighted_reinforce,
    {**_RETURNS, 'return_clip': Option(None, above=0.0)},
    needs={'reward', 'samples'},
    tokenwise=True,
    target=target,
    problems=_problems,
  ),
}
