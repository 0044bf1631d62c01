"""f-distill (Wen et al. 2023): sequence-level f-divergences, step by step."""

from kdjax.objective import Objective, Spec, Term

DIVERGENCES = ('kl', 'rkl', 'js', 'tvd')
MIXTURES = ('step_average', 'exact')


def f_distill(
  *,
  divergence: str = 'js',
  mixture: str = 'step_average',
  skew: float = 0.5,
  temperature: Spec = 1.0,
  normalize: str | None = None,
) -> Objective:
  """f-distill: KL, RKL, JS or TVD, with sequences from both sides.

    kl   E_teacher[-Σ p log q]
    rkl  E_student[KL(q ‖ p)]
    js   ½ E_teacher[KL(p ‖ m)] + ½ E_student[KL(q ‖ m)]
    tvd  ¼ E_teacher[Σ |p - q|] + ¼ E_student[Σ |p - q|]

  (arXiv 2307.15190, section 3). The teacher's responses are written beforehand
  (`--mode=generate`) or sampled at every step (`teacher_responses='online'`).

  Args:
    divergence: as above.
    mixture: the m of 'js'. 'step_average' is (p + q) / 2 at each step, what the
      paper trains with; 'exact' weighs p by p(y_<t) / (p(y_<t) + q(y_<t)), for
      which the steps add up to the sequences' divergence (its errata, section
      7).
    skew: the student's weight s in m = s q + (1 - s) p and of the student's
      side, of 'js'. The paper's is 0.5; its released scripts' 0.85 (DART, XSum,
      dialogue) and 0.25 (WMT16).
    temperature: of both distributions.
    normalize: None is 'token', as in the released code, or for 'exact' 'sum',
      under which the steps add up to the sequences.

  Raises:
    ValueError: an unknown divergence or mixture, or a skew that has no use.
  """
  for name, value, allowed in (
    ('divergence', divergence, DIVERGENCES),
    ('mixture', mixture, MIXTURES),
  ):
    if value not in allowed:
      raise ValueError(f'{name}={value!r}; allowed are {list(allowed)}')
  if not 0 < skew < 1:
    raise ValueError(f'skew={skew}: expected a number between 0 and 1')
  if (mixture, skew) != ('step_average', 0.5) and divergence != 'js':
    raise ValueError(f"mixture and skew belong to 'js', not to {divergence!r}")
  if mixture == 'exact' and (skew, temperature) != (0.5, 1.0):
    raise ValueError("mixture='exact' takes skew=0.5 and temperature=1")

  if normalize is None:
    normalize = 'sum' if mixture == 'exact' else 'token'

  def term(loss: str, source: str, weight: float = 1.0, **args: Spec) -> Term:
    if mixture == 'step_average':
      args['temperature'] = temperature
    return Term(source, loss, source, weight, normalize, loss_args=args)

  if divergence == 'kl':
    return Objective((term('soft_cross_entropy', 'teacher'),))
  if divergence == 'rkl':
    return Objective((term('reverse_kl', 'student'),))
  if divergence == 'tvd':
    sides = (term('total_variation', s, 0.5) for s in ('teacher', 'student'))
    return Objective(tuple(sides))
  if mixture == 'exact':
    return Objective(
      (
        term('exact_skew_forward_kl', 'teacher', 0.5),
        term('exact_skew_reverse_kl', 'student', 0.5),
      )
    )
  return Objective(
    (
      term('skew_forward_kl', 'teacher', 1 - skew, alpha=1 - skew),
      term('skew_reverse_kl', 'student', skew, alpha=skew),
    )
  )
