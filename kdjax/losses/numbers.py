"""The numbers among a loss's arguments, which are checked before it runs."""

from collections.abc import Callable

import jax


def number(value: jax.typing.ArrayLike | None) -> int | float | None:
  """Returns a scalar that isn't traced as Python's; None for all else.

  A traced one has no value yet, and an array may hold anything where a mask
  drops tokens: neither is checked.

  >>> import jax.numpy as jnp
  >>> number(jnp.float32(0.5)), number(jnp.ones(2)), number(None)
  (0.5, None, None)
  """
  if isinstance(value, int | float):
    return value
  if isinstance(value, jax.core.Tracer) or getattr(value, 'ndim', None) != 0:
    return None
  return value.item()


def is_wrong(
  value: jax.typing.ArrayLike | None, right: Callable[[float], bool]
) -> bool:
  """Whether a value is a number, but not a `right` one.

  >>> is_wrong(-1, lambda x: x > 0), is_wrong(None, lambda x: x > 0)
  (True, False)
  """
  found = number(value)
  return found is not None and not right(found)


def is_all(value: jax.typing.ArrayLike, wanted: float) -> bool:
  """Whether a value, if it isn't traced, is `wanted` everywhere.

  >>> import jax.numpy as jnp
  >>> is_all(jnp.ones(2), 1), is_all(jnp.arange(2), 1)
  (True, False)
  """
  if isinstance(value, jax.core.Tracer):
    return False
  # On the host: under a mesh, jax.numpy would trace it.
  same = jax.device_get(value) == wanted
  return bool(same if isinstance(same, bool) else same.all())
