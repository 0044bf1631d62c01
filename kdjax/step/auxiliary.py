"""Parameters that terms have of their own: projections, judges, heads."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import objective, types
from kdjax.models import api
from kdjax.step.learn import forward


def auxiliary(
  goal: objective.Objective,
  models: Mapping[str, tuple[api.LanguageModel | None, api.Params]],
  key: jax.Array,
) -> dict[str, Any]:
  """Returns the first parameters of the terms that have some, by term.

  Args:
    goal: the terms.
    models: 'student' and 'teacher', each a model (or None) and its parameters,
      of which only the shapes are read.
    key: of the run.

  Raises:
    ValueError: the two models' layers don't fit a term; says what to set.
  """
  found = {}
  for i, term in enumerate(goal.terms):
    make = objective.LOSSES[term.loss].auxiliary
    if make is None:
      continue
    seen = [
      _shapes(*models[role], term.needs())
      for role in ('student', 'teacher')
      if models[role][0] is not None
    ]
    args = objective.LOSSES[term.loss].filled(term.loss_args)
    try:
      made = make(jax.random.fold_in(key, i), seen[0], seen[-1], **args)
    except ValueError as error:
      raise ValueError(f'term {term.name!r}: {error}') from error
    if made:
      found[term.name] = made
  return found


def _shapes(
  model: api.LanguageModel, params: api.Params, needs: set[str]
) -> dict[str, Any]:
  """Returns the shapes of what a loss reads of a model, layer by layer."""
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  prompt = types.Prompt(tokens, jax.ShapeDtypeStruct((1, 2), bool))

  def run(params, prompt, tokens):
    hidden, layers = forward(model, params, prompt, tokens, needs)
    return {**(layers or {}), 'after': hidden}

  return jax.eval_shape(run, params, prompt, tokens)
