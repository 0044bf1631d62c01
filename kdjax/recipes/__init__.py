"""The named systems, each a few terms.

To add one, write a function that returns an `Objective` and list it in
`RECIPES`; its keyword arguments are what a config's `recipe` section may hold.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdjax.objective import REST, Objective, Spec, Term


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
    ValueError: `kd_weight` is no share, or `squared` meets a schedule of τ.
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


def imitkd(
  *, lam: Spec = 0.5, soft: bool = False, coin: str = 'batch'
) -> Objective:
  """ImitKD: the teacher's choice on a mixture of prefixes (Lin et al. 2020).

  Args:
    lam: fraction of student responses, 1 - β of the paper's DAgger-like β. To
      anneal β exponentially, give `terms` a source {'data': schedule of β,
      'student': 'rest'}.
    soft: the full cross-entropy to the teacher (ImitKD*), not to its argmax.
    coin: one coin a batch as in the paper, or 'example'.
  """
  loss = 'soft_cross_entropy' if soft else 'argmax_cross_entropy'
  return Objective((Term('imitkd', loss, _mixture(lam), coin=coin),))


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


def terms(*, terms: Sequence[Mapping[str, Any]]) -> Objective:
  """A method of your own: the terms themselves, each a mapping of fields.

  In a config, half reverse KL on the student's responses and half the
  cross-entropy to the gold ones is

    config.recipe = {'name': 'terms', 'terms': [
      {'loss': 'reverse_kl', 'source': 'student', 'weight': 0.5},
      {'loss': 'cross_entropy', 'source': 'data', 'weight': 0.5},
    ]}

  Args:
    terms: fields of `objective.Term`; `name` is the loss unless given.

  Raises:
    ValueError: listing what is no mapping, lacks a loss, or has other fields.
  """
  known = [field.name for field in dataclasses.fields(Term)]
  found = []
  for i, fields in enumerate(terms):
    if not isinstance(fields, Mapping):
      found.append(f'terms[{i}]={fields!r}: expected a mapping')
      continue
    if unknown := sorted(set(fields) - set(known)):
      found.append(f'terms[{i}] has no {unknown}; its fields are {known}')
    if 'loss' not in fields:
      found.append(f"terms[{i}] lacks 'loss'")
  if found:
    raise ValueError('; '.join(found))
  return Objective(
    tuple(Term(**{'name': fields['loss'], **fields}) for fields in terms)
  )


def _mixture(lam: Spec, source: str = 'data') -> dict[str, Spec | str]:
  if not isinstance(lam, (int, float)):
    return {'student': lam, source: REST}
  return {k: v for k, v in {'student': lam, source: 1.0 - lam}.items() if v}


RECIPES: dict[str, Callable[..., Objective]] = {
  'sft': sft,
  'word_kd': word_kd,
  'seqkd': seqkd,
  'imitkd': imitkd,
  'supervised_kd': supervised_kd,
  'on_policy_kd': on_policy_kd,
  'gkd': gkd,
  'terms': terms,
}


def build(name: str, **args: Any) -> Objective:
  """Returns the objective of a named system.

  Raises:
    ValueError: if the name, an argument or a value isn't valid; says all.
  """
  found = problems(name, args)
  if found:
    raise ValueError('\n'.join(found))
  return RECIPES[name](**args)


def problems(name: str, args: Mapping[str, Any]) -> list[str]:
  """Returns what is wrong with a recipe's name and arguments."""
  if name not in RECIPES:
    return [f'recipe.name={name!r}; known recipes are {sorted(RECIPES)}']
  parameters = inspect.signature(RECIPES[name]).parameters.values()
  known = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
  open_ended = len(known) < len(parameters)
  unknown = sorted(set(args) - set(known))
  if unknown and not open_ended:
    return [f'recipe {name!r} takes no {unknown}; it takes {known}']
  try:
    found = RECIPES[name](**args).problems()
  except (TypeError, ValueError) as error:
    found = [str(error)]
  if found and unknown:
    found.append(f'it takes {known}, and what its divergence takes')
  return [f'recipe {name!r}: {problem}' for problem in found]
