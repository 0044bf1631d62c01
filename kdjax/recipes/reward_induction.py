"""Rewards that a language model's logits imply, and policies that seek them."""

from kdjax.objective import Objective, Spec, Term

_ENTROPIES = {
  'uniform': 'uniform_cross_entropy',
  'shannon': 'negative_entropy',
}


def llmr(
  *,
  reward: str = 'induced',
  scale: Spec = 100.0,
  clip: Spec | None = 1.0,
  entropy_weight: Spec = 0.1,
  entropy: str = 'uniform',
  sparse: bool = False,
  baseline: str = 'none',
  finished_only: bool = True,
  task: str = '',
) -> Objective:
  """LLMR: the policy gradient of the teacher's induced reward (Li et al. 2024).

  `-A_t log q(y_t)`, A_t = clip(ρ_t Σ_{t' >= t} r_{t'} / scale, ± clip), with
  r_t = f(y_t | s_t) - max_v f(v | s_{t+1}) of the teacher's centred logits f,
  and ρ_t = q / b of the policy b that was sampled from: a copy of the student
  that `behaviour_sync` renews, with `sampling.top_k`. The teacher reads
  `task.teacher_prompts`, the student the raw prompt.

  The paper's own numbers are unknown; these are those of LMReward (Hao et al.
  2022), whose released script also sets `reward='induced_soft'` and
  `baseline='teacher'`.

  Args:
    reward: 'induced', 'induced_soft' (the mean, not the max), or another.
    scale: divides the returns.
    clip: bounds the weighted returns.
    entropy_weight: η of the entropy term.
    entropy: 'uniform', the released one: the cross-entropy from the uniform
      distribution, as a penalty; or 'shannon', Σ q log q.
    sparse: sentence-level: the whole return for every token.
    baseline: see `objective.policy.target`.
    finished_only: leaves out samples without an end, as released.
    task: of the prompts; '' is the main one.

  Raises:
    ValueError: an unknown entropy.
  """
  if entropy not in _ENTROPIES:
    raise ValueError(f'entropy={entropy!r}; allowed are {sorted(_ENTROPIES)}')
  shared = {'task': task, 'finished_only': finished_only}
  terms = [
    Term(
      'policy',
      'weighted_reinforce',
      'student',
      reward=reward,
      loss_args={
        'reward_scale': scale,
        'return_clip': clip,
        'sparse': sparse,
        'baseline': baseline,
      },
      **shared,
    )
  ]
  if entropy_weight:
    terms.append(
      Term('entropy', _ENTROPIES[entropy], 'student', entropy_weight, **shared)
    )
  return Objective(tuple(terms))


def self_distillation(
  *,
  reward: str = 'induced_soft',
  task: str = 'unlabelled',
  baseline: str = 'teacher',
  sparse: bool = False,
  scale: Spec = 100.0,
  clip: Spec | None = 1.0,
  entropy_weight: Spec = 0.1,
) -> Objective:
  """Semi-supervised learning from a model's own induced reward (LMReward).

  A model f is fine-tuned on labelled data and frozen as the teacher; the policy
  starts from the same weights and learns on unlabelled prompts (Hao et al.
  2022). With reward='learned', a reward model in place of f: R-Regression,
  whose model `reward_regression` trains; then baseline='mean'.

  Args:
    reward: 'induced_soft' (released), 'induced' or 'learned'.
    task: of the unlabelled prompts.
    baseline: the released script's is the teacher's.
    sparse: defers all rewards to the end.
    scale: divides the returns.
    clip: bounds the weighted returns.
    entropy_weight: of the uniform cross-entropy.
  """
  return llmr(
    reward=reward,
    scale=scale,
    clip=clip,
    entropy_weight=entropy_weight,
    sparse=sparse,
    baseline=baseline,
    task=task,
  )
