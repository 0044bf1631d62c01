"""A method of your own, in a config."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax import values
from kdjax.objective import Objective, Term


def terms(*, terms: Sequence[Any]) -> Objective:
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
    ValueError: listing what fields are missing, unknown or of a wrong type.
  """
  found = []
  for i, fields in enumerate(terms):
    if not isinstance(fields, Mapping):
      found.append(f'terms[{i}]={values.shown(fields)}: expected a mapping')
      continue
    named = {'name': fields.get('loss', ''), **fields}
    wrong = values.problems(Term, named, internal=('bound',))
    found += [f'terms[{i}]: {problem}' for problem in wrong]
  if found:
    raise ValueError('; '.join(found))
  return Objective(
    tuple(Term(**{'name': fields['loss'], **fields}) for fields in terms)
  )
