"""The training state: everything that an update reads and rewrites."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax import types


@types.struct
class State:
  """What a checkpoint holds.

  Attributes:
    params: 'student', and the auxiliary parameters of terms that have some.
    opt_state: of the optimizer over `params`.
    step: [] int32, steps done: rollouts, each with its updates, skipped ones
      included.
    key: [] typed PRNG key of the run, never split or replaced: what is random
      at a step comes from `fold_in(key, step)`.
    skipped: [] int32, non-finite updates that were skipped in all.
    consecutive_skipped: [] int32, how many of these end at the last step.
    behaviour: the parameters that rollouts are sampled from, or None where they
      are the student's.
    replay: earlier student samples by task (`step.Memory`), or None.
    pending_rollout: a rollout that waits for its update, or None.
  """

  params: dict[str, Any]
  opt_state: Any
  step: jax.Array
  key: jax.Array
  skipped: jax.Array
  consecutive_skipped: jax.Array
  behaviour: Any = None
  replay: Any = None
  pending_rollout: Any = None


def create(
  params: dict[str, Any],
  optimizer: optax.GradientTransformation,
  seed: int,
  *,
  stale: bool = False,
  replay: Any = None,
) -> State:
  """Returns the state before the first update.

  The arrays of `params` are not copied: an update that donates the state takes
  them over.

  Args:
    params: 'student', and the auxiliary parameters of terms.
    optimizer: over `params`.
    seed: of the run's key.
    stale: whether rollouts are sampled from a behaviour policy, which begins as
      a copy of the student.
    replay: where terms replay earlier samples, a `step.memory` for each task of
      `Objective.replayed`.

  Raises:
    ValueError: `params` has no 'student'.
  """
  if not isinstance(params, dict) or 'student' not in params:
    names = sorted(params) if isinstance(params, dict) else type(params)
    raise ValueError(
      f"params must be a dict with the key 'student', got {names}; wrap a "
      "model's parameters as {'student': params}"
    )
  return State(
    params=params,
    opt_state=optimizer.init(params),
    # Arrays of their own: one that stands twice in a tree can't be donated.
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(seed),
    skipped=jnp.zeros((), jnp.int32),
    consecutive_skipped=jnp.zeros((), jnp.int32),
    behaviour=jax.tree.map(jnp.copy, params['student']) if stale else None,
    replay=replay,
  )
