"""Learning from the student's own responses, in mixtures with given ones."""

from typing import Any

from kdjax.objective import REST, Objective, Spec, Term


def imitkd(
  *,
  lam: Spec = 0.5,
  soft: bool = False,
  source: str = 'data',
  coin: str = 'example',
) -> Objective:
  """ImitKD: the teacher's choice on a mixture of prefixes (Lin et al. 2020).

  The authors' code takes the student's responses greedily, which here is
  `sampling.temperature=0`, and keeps the words of given responses as their hard
  labels, where here the teacher's choice is the label of all.

  Args:
    lam: fraction of student responses, 1 - β of the paper's DAgger-like β. To
      anneal β exponentially, give `terms` a source {'data': schedule of β,
      'student': 'rest'}.
    soft: the full cross-entropy to the teacher, not to its argmax.
    source: the given responses: 'data', or 'teacher' (ImitKD*).
    coin: 'example' as in the authors' code (stratified here), or 'batch'.
  """
  loss = 'soft_cross_entropy' if soft else 'argmax_cross_entropy'
  return Objective((Term('imitkd', loss, _mixture(lam, source), coin=coin),))


def supervised_kd(
  *, divergence: str = 'forward_kl', source: str = 'data', **loss_args: Any
) -> Objective:
  """Supervised KD: `E_data[D(p, q)]` (Agarwal et al. 2024, L_SD)."""
  return gkd(lam=0.0, divergence=divergence, source=source, **loss_args)


def on_policy_kd(
  *, divergence: str = 'forward_kl', **loss_args: Any
) -> Objective:
  """On-policy KD: `E_student[D(p, q)]` (Agarwal et al. 2024, L_OD)."""
  return gkd(lam=1.0, divergence=divergence, **loss_args)


def gkd(
  *,
  lam: Spec = 0.5,
  divergence: str = 'generalized_jsd',
  source: str = 'data',
  coin: str = 'example',
  normalize: str = 'sequence',
  **loss_args: Any,
) -> Objective:
  """GKD: `(1 - λ) E_data[D(p, q)] + λ E_student[D(p, q)]`.

  Agarwal et al. (2024), eq. 2 and algorithm 1: each sequence counts the same
  (`1 / L_y`), and nothing differentiates the sampler.

  Args:
    lam: λ, the fraction of student responses; a number or a schedule.
    divergence: a name in `losses.DIVERGENCES`.
    source: 'data' or 'teacher', the fixed responses.
    coin: 'example' (stratified within the batch) or 'batch' (the paper's).
    normalize: 'sequence' as in the paper, or 'token' as in TRL.
    **loss_args: the divergence's, such as `beta`, `normalized`, `temperature`.
  """
  term = Term(
    'gkd',
    divergence,
    _mixture(lam, source),
    coin=coin,
    normalize=normalize,
    loss_args=loss_args,
  )
  return Objective((term,))


def distillm(
  *,
  student: Spec = 0.1,
  replay: Spec = 0.4,
  divergence: str = 'skew_forward_kl',
  source: str = 'data',
  coin: str = 'example',
  normalize: str = 'token',
  **loss_args: Any,
) -> Objective:
  """DistiLLM: skew divergences, on earlier samples more than on present ones.

  `E_y[D(p, q)]` with y the student's, sampled now with probability `student`
  and taken from its last `replay_size` responses with probability `replay`, and
  given else (Ko et al. 2024, section 3.2). With φ the share of the student's
  responses and s steps, the paper samples fewer and fewer, φ(1 - t / s) now:
  `student={'kind': 'linear', 'start': φ, 'end': 0.0, 'steps': s}` and `replay`
  from 0 to φ. Its φ grows where the validation loss does; here it is given.

  Args:
    student: fraction of responses sampled now; a number or a schedule.
    replay: fraction of earlier ones.
    divergence: a name in `losses.DIVERGENCES`; the paper's other one is
      'skew_reverse_kl'.
    source: 'data' or 'teacher', the fixed responses.
    coin: 'example' (stratified within the batch) or 'batch' (the paper's).
    normalize: 'token' as in the paper's code, or 'sequence'.
    **loss_args: the divergence's, such as `alpha` (the paper's is 0.1).
  """
  mixture = {'student': student, 'replay': replay, source: REST}
  term = Term(
    'distillm',
    divergence,
    mixture,
    coin=coin,
    normalize=normalize,
    loss_args=loss_args,
  )
  return Objective((term,))


def engine(
  *, form: str = 'soft', temperature: Spec = 1.0, normalize: str = 'token'
) -> Objective:
  """ENGINE: the teacher's energy of what the student says (Tu et al. 2020).

  Reverse KL without the student's entropy, as f-distill's code has it.

  Args:
    form: 'soft', `-Σ_v q log p` on greedy responses; 'straight_through', its
      one-hot variant; or 'reinforce', a policy gradient with the reward
      `log p(y_t)` on sampled ones.
    temperature: of both distributions; not of 'reinforce'.
    normalize: of the first two. The policy gradient is summed over a sequence,
      as its expectation asks for.

  Raises:
    ValueError: an unknown form.
  """
  forms = ('soft', 'straight_through', 'reinforce')
  if form not in forms:
    raise ValueError(f'form={form!r}; allowed are {list(forms)}')
  if form == 'reinforce':
    term = Term(
      'engine',
      'policy_gradient',
      'student',
      normalize='sum',
      reward='teacher_logprob',
      loss_args={'importance': False, 'baseline': 'mean'},
    )
    return Objective((term,))
  args = {
    'straight_through': form == 'straight_through',
    'temperature': temperature,
  }
  term = Term('engine', 'engine', 'greedy', normalize=normalize, loss_args=args)
  return Objective((term,))


def _mixture(lam: Spec, source: str = 'data') -> dict[str, Spec | str]:
  if not isinstance(lam, (int, float)):
    return {'student': lam, source: REST}
  return {k: v for k, v in {'student': lam, source: 1.0 - lam}.items() if v}
