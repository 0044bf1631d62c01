"""Learning from responses that are given: gold ones, or a teacher's."""

from kdjax.objective import Objective, Spec, Term


def sft() -> Objective:
  """Supervised fine-tuning: `E_data[-log q(y)]`, no teacher."""
  return Objective((Term('sft', 'cross_entropy', 'data'),))


def word_kd(
  *, temperature: Spec = 1.0, kd_weight: float = 1.0, squared: bool = False
) -> Objective:
  """Word-level distillation on gold responses (Hinton et al. 2015).

  `kd_weight · KL(p ‖ q) + (1 - kd_weight) · cross-entropy` at a temperature τ.

  Args:
    temperature: τ, of both distributions.
    kd_weight: share of the soft loss.
    squared: multiplies the soft loss by τ², as Hinton et al. do to keep its
      gradient's size; needs a constant τ.

  Raises:
    ValueError: `kd_weight` isn't a share, or `squared` meets a schedule of τ.
  """
  if not 0 <= kd_weight <= 1:
    raise ValueError(f'kd_weight={kd_weight}: expected 0 to 1')
  if squared and not isinstance(temperature, (int, float)):
    raise ValueError(
      f'squared=True needs a number as temperature, got {temperature}'
    )
  scale = float(temperature) ** 2 if squared else 1.0
  soft = Term(
    'kd',
    'forward_kl',
    'data',
    weight=kd_weight * scale,
    loss_args={'temperature': temperature},
  )
  if kd_weight == 1.0:
    return Objective((soft,))
  hard = Term('sft', 'cross_entropy', 'data', weight=1.0 - kd_weight)
  return Objective((soft, hard))


def seqkd() -> Objective:
  """Sequence-level distillation: `E_teacher[-log q(y)]` (Kim & Rush 2016).

  The teacher's responses come from `--mode=generate`, with beams for the
  paper's setting.
  """
  return Objective((Term('seqkd', 'cross_entropy', 'teacher'),))


def self_training(*, task: str = 'unlabelled', weight: Spec = 1.0) -> Objective:
  """Self-training: gold responses, and a teacher's to unlabelled prompts.

  `E_data[-log q(y)] + weight · E_{x ~ task, y ~ teacher}[-log q(y)]` (He et al.
  2020), with the student as it was after fine-tuning for a teacher. Noise on
  the inputs is the student's dropout.

  Args:
    task: of the unlabelled prompts, a name in the config's `tasks`.
    weight: of the teacher's responses.
  """
  return Objective(
    (
      Term('sft', 'cross_entropy', 'data'),
      Term('pseudo', 'cross_entropy', 'teacher', weight, task=task),
    )
  )


def akl(
  *, mu: Spec = 0.5, source: str = 'data', temperature: Spec = 1.0
) -> Objective:
  """Adaptive KL on given responses (Wu et al. 2024).

  Args:
    mu: the teacher's mass that counts as the head of its distribution.
    source: 'data' or 'teacher'.
    temperature: of both distributions.
  """
  args = {'mu': mu, 'temperature': temperature}
  return Objective((Term('akl', 'adaptive_kl', source, loss_args=args),))
