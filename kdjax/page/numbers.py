"""Numbers as JSON and as sentences have them."""

import math
from collections.abc import Sequence
from typing import Any

# A value and the ends of its interval; None is what isn't known.
Interval = Sequence[float | None]


def finite(value: float | None) -> float | None:
  """Returns the number, or None for what JSON can't say."""
  return value if value is not None and math.isfinite(value) else None


def rounded(value: float | None, digits: int = 5) -> float | None:
  """Returns the number with as many digits as a page can show, or None."""
  value = finite(value)
  return None if value is None else float(f'{value:.{digits}g}')


def interval(estimate: Any) -> list[float | None]:
  """Returns [value, low, high] of a `kdjax.results` estimate."""
  return [rounded(x, 6) for x in (estimate.value, estimate.low, estimate.high)]


def overlap(a: Interval, b: Interval) -> bool:
  """Whether two intervals share a value; unknown ends rule nothing out."""
  if None in (*a, *b):
    return True
  return a[1] <= b[2] and b[1] <= a[2]


def digits(values: Sequence[float | None]) -> int:
  """Percentages read best with two digits, nats below one with three."""
  known = [abs(x) for x in values if x is not None]
  return 2 if max(known, default=0.0) >= 1 else 3


def cell(found: Interval, *, signed: bool = False) -> str:
  """Returns '21.40 [20.95, 21.80]', without ends that aren't known."""
  known = [x for x in found if x is not None]
  if not known:
    return 'unknown'
  form = f'{"+" if signed else ""}.{digits(known)}f'
  value, *ends = (f'{x:{form}}' for x in known)
  return f'{value} [{", ".join(ends)}]' if len(ends) == 2 else value
