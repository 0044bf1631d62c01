"""Policy gradients beside, or in place of, a divergence."""

from typing import Any

from kdjax.objective import Objective, Spec, Term


def gkd_rl(
  *,
  reward: str,
  alpha: float = 0.5,
  divergence: str = 'reverse_kl',
  baseline: str = 'mean',
  importance: bool = False,
  **loss_args: Any,
) -> Objective:
  """GKD with RL: `max (1 - α) E_student[r(y)] - α E_student[D(p, q)(y)]`.

  Agarwal et al. (2024), eq. 5; they take reverse KL or JSD(0.9) for D, which
  keeps the student near the teacher while the reward pulls. α = 1 is pure
  on-policy distillation.

  Args:
    reward: r: a function over texts on the host, a traced one, or one of the
      models' (`objective.REWARDS`).
    alpha: α, a number between 0 and 1.
    divergence: D, a name in `losses.DIVERGENCES`.
    baseline: of the policy gradient, see `objective.policy.target`.
    importance: weighs samples by q over what they were sampled from; for stale,
      mixed, tempered or filtered policies, and several updates a rollout.
    **loss_args: the divergence's, such as `beta` and `temperature`.

  Raises:
    ValueError: α isn't a share.
  """
  if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
    raise ValueError(f'alpha={alpha}: expected a number from 0 to 1')
  terms = []
  if alpha < 1:
    args = {'baseline': baseline, 'importance': importance}
    terms.append(_reinforce(reward, 1 - alpha, args))
  if alpha > 0:
    terms.append(
      Term(
        'kd',
        divergence,
        'student',
        alpha,
        normalize='sequence',
        loss_args=loss_args,
      )
    )
  return Objective(tuple(terms))


def reinforce(
  *,
  reward: str,
  baseline: str = 'greedy',
  kl_weight: Spec = 0.0,
  **loss_args: Any,
) -> Objective:
  """REINFORCE: `max E_student[r(y)]`, held near a reference model by w.

  With a similarity to the gold response as reward (`rougeL`, `bleu`) and the
  greedy response's as baseline, self-critical training (Rennie et al. 2017);
  with reward='learned', what follows a preference reward model.

  Args:
    reward: r.
    baseline: see `objective.policy.target`.
    kl_weight: w, of GRPO's estimate of the KL to the reference model. On given
      samples its gradient is that of the KL from it.
    **loss_args: the policy gradient's, such as `reward_scale`.
  """
  terms = [_reinforce(reward, 1.0, {'baseline': baseline, **loss_args})]
  if kl_weight:
    terms.append(Term('kl', 'kl_estimate', 'student', kl_weight, 'sum'))
  return Objective(tuple(terms))


def grpo(
  *,
  reward: str,
  clip: Spec | None = 0.2,
  kl_weight: Spec = 0.04,
  scale: bool = True,
  normalize: str = 'sequence',
) -> Objective:
  """GRPO: advantages relative to the prompt's other samples (Shao et al. 2024).

  `-1/G Σ_i 1/|o_i| Σ_t min(ρA, clip(ρ, 1 ± ε) A) - β KL(q ‖ q_ref)`, with the
  estimator π_ref/π - log(π_ref/π) - 1 and A = (r - mean r) / std r.

  G is `sampling.samples_per_prompt`. With `updates_per_rollout=1` and samples
  at temperature 1, ρ is 1 and the clip does nothing.

  Args:
    reward: r, a rule over texts or any other.
    clip: ε.
    kl_weight: β; DeepSeekMath's is 0.04, R1-Zero's 0.001. 0 needs no reference.
    scale: divides by the standard deviation; not in Dr. GRPO (Liu et al. 2025).
    normalize: 'sequence' as in the paper; 'token' as in DAPO.
  """
  baseline = 'group' if scale else 'group_mean'
  terms = [
    Term(
      'grpo',
      'policy_gradient',
      'student',
      normalize=normalize,
      reward=reward,
      loss_args={'baseline': baseline, 'clip': clip},
    )
  ]
  if kl_weight:
    terms.append(Term('kl', 'kl_estimate', 'student', kl_weight, normalize))
  return Objective(tuple(terms))


def minillm(
  *,
  clip: Spec | None = 0.2,
  reward_scale: float = 1.0,
  reward_clip: float | None = 100.0,
  discount: Spec = 1.0,
  length_normalized: bool = True,
  single_step: bool = True,
  released: bool = False,
  lm_weight: float = 1.0,
  lm_task: str = 'corpus',
) -> Objective:
  """MiniLLM: KL(q ‖ p) of whole responses by policy gradient (Gu et al. 2024).

  The reward of a token is log p - log q. Its own step is differentiated exactly
  (`Σ_v q log(q/p)`), the rest by PPO with the mean reward of the tokens to
  come, weighed by q over the distribution sampled from: a mixture with the
  teacher, `teacher_mix=0.2` in the config. The exact step needs no such weight:
  given its prefix, the weight's mean is 1.

  The released code lets the policy gradient see each token's own reward too
  (which `single_step` then counts twice), divides rewards by 0.5, discounts by
  0.95 and whitens: `released=True, reward_scale=0.5, discount=0.95`.

  Args:
    clip: of the ratio.
    reward_scale: divides the rewards.
    reward_clip: bounds them.
    discount: γ, relative to the token's position.
    length_normalized: divides returns by the number of remaining tokens.
    single_step: the exact first step.
    released: the advantages of the released code.
    lm_weight: of `½ CE + ½ KL(p ‖ q)` on the corpus; 0 leaves it out.
    lm_task: the corpus, a name in the config's `tasks`.
  """
  advantages = Term(
    'policy',
    'policy_gradient',
    'student',
    reward='reverse_kl',
    loss_args={
      'clip': clip,
      'reward_scale': reward_scale,
      'reward_clip': reward_clip,
      'discount': discount,
      'length_normalized': length_normalized,
      'future_only': single_step and not released,
      'baseline': 'whiten' if released else 'none',
    },
  )
  if not isinstance(lm_weight, (int, float)):
    raise ValueError(f'lm_weight={lm_weight}: expected a number')
  terms = [advantages]
  if single_step:
    terms.append(Term('single_step', 'reverse_kl', 'student'))
  if lm_weight:
    half = lm_weight / 2
    terms += [
      Term('lm', 'cross_entropy', 'data', half, task=lm_task),
      Term('lm_kd', 'forward_kl', 'data', half, task=lm_task),
    ]
  return Objective(tuple(terms))


def _reinforce(reward: str, weight: float, args: dict[str, Any]) -> Term:
  """The gradient of E[r(y)]: summed over a sequence, one sample each."""
  return Term(
    'reward',
    'policy_gradient',
    'student',
    weight,
    normalize='sum',
    reward=reward,
    loss_args={'importance': False, **args},
  )
