"""Preferences: two responses to each prompt, one better than the other."""

from typing import Any

from kdjax.objective import Objective, Spec, Term

_DPKD_FORMS = ('dpkd', 'ipo', 'cpo', 'simpo')
_DPO_FORMS = ('dpo', 'ipo', 'cpo', 'simpo')


def dpkd(
  *,
  form: str = 'dpkd',
  length_normalized: bool | None = None,
  lm_weight: Spec = 0.5,
  lm_task: str = '',
  chosen: str = 'teacher',
  rejected: str = 'student',
  **loss_args: Any,
) -> Objective:
  """DPKD: the teacher's response is preferred to the student's own.

  `-E log σ(β/|y_t| log(q/p)(y_t) - β/|y_s| log(q/p)(y_s)) + λ E[-log q(d)]`
  (arXiv 2406.19774, eq. 9 and algorithm 1). The reference model is the teacher
  itself. What the authors released is another algorithm: `dpkd_token`. The
  metrics hold both implicit rewards and, for each side, both divergences, over
  all tokens and at the first (the paper's ablation). 'cpo' and 'simpo' read no
  teacher, and so track neither.

  Args:
    form: 'dpkd', or the paper's table 2: 'ipo', 'cpo', 'simpo'.
    length_normalized: eq. 9; eq. 8 without. By default so for 'dpkd', and not
      for 'ipo'; 'cpo' never is, 'simpo' always.
    lm_weight: λ; 0 leaves the language-model term out.
    lm_task: whose gold responses are d: a name in the config's `tasks`, such as
      a corpus of plain text; '' is the main task.
    chosen: y_t.
    rejected: y_s, sampled anew at every step.
    **loss_args: the form's, such as `beta`, `tau` or `gamma`.

  Raises:
    ValueError: an unknown form.
  """
  pair = {'chosen': chosen, 'rejected': rejected}
  args = dict(loss_args)
  if form in ('dpkd', 'ipo'):
    if length_normalized is None:
      length_normalized = form == 'dpkd'
    args |= {'length_normalized': length_normalized, 'reference': 'teacher'}
  elif length_normalized is not None:
    raise ValueError(
      f'length_normalized={length_normalized} does not go with form={form!r}: '
      "leave it out, or set form to 'dpkd' or 'ipo'"
    )
  terms = _preference(form, _DPKD_FORMS, pair, args)
  if lm_weight:
    terms += (
      Term('lm', 'cross_entropy', 'data', weight=lm_weight, task=lm_task),
    )
  return Objective(terms)


def dpkd_token(
  *,
  beta: Spec = 0.1,
  kd_ratio: float = 0.5,
  lm_weight: float = 0.5,
  lm_task: str = '',
  source: str = 'teacher',
) -> Objective:
  """DPKD as its authors released it: a preference at every token.

  `(1 - k) CE + k DPKD_token`, where both models' favourite tokens on given
  prefixes are compared, `+ lm_weight ((1 - k) CE + k KL(p ‖ q))` on a corpus.
  It samples nothing. Never to be compared with `dpkd`'s figures.

  Args:
    beta: β.
    kd_ratio: k.
    lm_weight: of the corpus; used where `lm_task` names one.
    lm_task: a name in the config's `tasks`, or ''.
    source: of the prefixes; the authors' are the teacher's responses.
  """
  terms = [
    Term('sft', 'cross_entropy', source, 1 - kd_ratio),
    Term('dpkd', 'dpkd_token', source, kd_ratio, loss_args={'beta': beta}),
  ]
  if lm_task:
    hard, soft = lm_weight * (1 - kd_ratio), lm_weight * kd_ratio
    terms += [
      Term('lm', 'cross_entropy', 'data', hard, task=lm_task),
      Term('lm_kd', 'forward_kl', 'data', soft, task=lm_task),
    ]
  return Objective(tuple(terms))


def dpo(*, form: str = 'dpo', **loss_args: Any) -> Objective:
  """DPO on a file of pairs (Rafailov et al. 2023), or IPO, CPO, SimPO.

  `-log σ(β log(q/q_ref)(y_w) - β log(q/q_ref)(y_l))`; the reference is the
  student as it starts, unless the config names another.

  Args:
    form: 'dpo', 'ipo', 'cpo' or 'simpo'.
    **loss_args: the form's, such as `beta`, `tau`, `gamma`, `label_smoothing`.

  Raises:
    ValueError: an unknown form.
  """
  pair = {'chosen': 'data', 'rejected': 'rejected'}
  return Objective(_preference(form, _DPO_FORMS, pair, loss_args))


def ranking(
  *,
  form: str = 'logistic',
  margin: Spec = 1.0,
  length_normalized: bool = False,
  by: str = '',
) -> Objective:
  """The student's samples, ranked by the teacher: `-log σ(log q⁺ - log q⁻)`.

  The best and the worst of each prompt's `sampling.samples_per_prompt`.

  Args:
    form: 'logistic', 'hinge', or 'linear', the literal loss, which is unbounded
      below.
    margin: of 'hinge'.
    length_normalized: compares the means of log-probabilities.
    by: the reward that ranks; by default the teacher's log-probability, or its
      mean where `length_normalized`.
  """
  if not by:
    by = 'teacher_mean_logprob' if length_normalized else 'teacher_logprob'
  term = Term(
    'ranking',
    'ranking',
    {'ranked': 'student', 'by': by},
    loss_args={
      'form': form,
      'margin': margin,
      'length_normalized': length_normalized,
    },
  )
  return Objective((term,))


def _preference(
  form: str,
  allowed: tuple[str, ...],
  source: dict[str, str],
  args: dict[str, Any],
) -> tuple[Term, ...]:
  if form not in allowed:
    raise ValueError(f'form={form!r}; allowed are {list(allowed)}')
  terms = (Term(form, form, source, loss_args=args),)
  if form == 'cpo':
    # CPO holds the chosen response's likelihood up (Xu et al. 2024).
    terms += (Term('nll', 'cross_entropy', source['chosen'], normalize='sum'),)
  return terms
