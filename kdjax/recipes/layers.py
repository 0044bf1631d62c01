"""Matching intermediate layers beside the output."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.objective import Objective, Spec, Term

KINDS = {
  'hidden': 'hidden_distance',
  'cosine': 'cosine_distance',
  'adversarial': 'adversarial',
  'attention': 'attention_distance',
  'cross_attention': 'cross_attention_distance',
}


def pre_distillation(
  *,
  kd_weight: float = 0.8,
  sft_weight: float = 0.2,
  hidden_weight: float = 3.0,
  temperature: float = 1.0,
  strategy: str = 'copied',
  stacks: Sequence[str] = ('encoder', 'decoder'),
  normalize_hidden: bool = False,
) -> Objective:
  """Pre-distillation of a student made of teacher layers.

  `0.8 T² KL(p ‖ q) + 0.2 CE(gold) + 3 (H_encoder + H_decoder)`, where H is the
  mean squared error of matched hidden states, a token and unit of width
  (Shleifer & Rush 2020, as f-distill's code has it). Make the student by
  `models.copy_layers(teacher, layers)`.

  The released code matches `hidden_states[i]`, of which the first are the
  embeddings, so that the student's last layer learns from none; here blocks'
  outputs are matched. Its `normalize_hidden` normalises over batch, sequence
  and width at once, ours every token.

  Args:
    kd_weight: α_ce.
    sft_weight: α_mlm.
    hidden_weight: α_hid; the paper's dialogue setting is 0.1, with
      `normalize_hidden`.
    temperature: T; the f-distill scripts take 1 for DART and 2 for XSum and MT.
    strategy: 'copied' matches each layer with the one it was made of; 'forward'
      is the authors' alternative. See `losses.select_layers`.
    stacks: whose layers; ('decoder',) for decoder-only models.
    normalize_hidden: layer-normalises the hidden states first.
  """
  kl = {'temperature': temperature}
  terms = [
    Term('kd', 'forward_kl', weight=kd_weight * temperature**2, loss_args=kl),
    Term('sft', 'cross_entropy', weight=sft_weight),
  ]
  args = {'strategy': strategy, 'mean': True, 'normalize': normalize_hidden}
  return Objective((*terms, *_matching('hidden', stacks, hidden_weight, args)))


def layer_matching(
  *,
  kind: str = 'hidden',
  strategy: str = 'forward',
  stacks: Sequence[str] = ('decoder',),
  weight: Spec = 3.0,
  kd_weight: Spec = 1.0,
  sft_weight: Spec = 1.0,
  divergence: str = 'forward_kl',
  **loss_args: Any,
) -> Objective:
  """Intermediate layers, beside word-level distillation and gold responses.

  `w Σ_j ‖t_j - α W s_j‖² + KL(p ‖ q) + CE(gold)` with `kind='hidden'`, the
  weights 3, 1 and 1 of Yu et al. (2025), who compare the strategies. Their code
  takes the mean over the matched layers, where this is the sum.

  Args:
    kind: 'hidden' (projected L2 distance), 'cosine', 'adversarial' (Chung et
      al. 2020: a discriminator that the student is to fool), 'attention' or
      'cross_attention' (maps).
    strategy: which student layer learns from which teacher layer, see
      `losses.select_layers`; '' where both have as many.
    stacks: 'encoder', 'decoder' or both.
    weight: of the match.
    kd_weight: of the divergence on gold responses.
    sft_weight: of the cross-entropy.
    divergence: a name in `losses.DIVERGENCES`.
    **loss_args: the match's, such as `target_layer`, `seed`, `scale`, `mean`
      and `distance`.

  Raises:
    ValueError: an unknown kind.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r}; allowed are {list(KINDS)}')
  terms = [
    Term('kd', divergence, weight=kd_weight),
    Term('sft', 'cross_entropy', weight=sft_weight),
  ]
  terms = [term for term in terms if term.weight]
  args = {'strategy': strategy, **loss_args}
  return Objective((*terms, *_matching(kind, stacks, weight, args)))


def _matching(
  kind: str, stacks: Sequence[str], weight: Spec, args: Mapping[str, Any]
) -> tuple[Term, ...]:
  if isinstance(stacks, str):
    stacks = (stacks,)
  return tuple(
    Term(
      f'{kind}_{stack}',
      KINDS[kind],
      weight=weight,
      loss_args={'stack': stack, **args},
    )
    for stack in stacks
    if weight
  )
