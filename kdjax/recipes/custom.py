"""A method of your own, in a config."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.objective import Objective, Term


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
