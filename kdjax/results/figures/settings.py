"""Which settings a figure shows, and what they are compared with."""

from collections.abc import Sequence

from kdjax.results import folder
from kdjax.results.sweep import Best, Results, Setting, label


def varied(results: Results) -> list[str]:
  """Returns the axes that have several values."""
  return [name for name, values in results.axes.items() if len(values) > 1]


def numeric(results: Results, axis: str) -> bool:
  """Whether an axis has numbers alone."""
  return all(folder.is_number(value) for value in results.axes[axis])


def panels(results: Results, others: Sequence[str]) -> dict[str, list[Setting]]:
  """The settings by the values that they have of some axes."""
  found: dict[str, list[Setting]] = {}
  others = [name for name in others if name in varied(results)]
  for setting in results.settings:
    own = {k: v for k, v in setting.values.items() if k in others}
    found.setdefault(label(own), []).append(setting)
  return found


def own_label(results: Results, setting: Setting) -> str:
  """The values by which a setting differs: 'gkd, beta=0.5'."""
  parts = []
  for name in varied(results):
    if name in setting.values:
      value = setting.values[name]
      # Names speak for themselves, numbers don't.
      alone = isinstance(value, str)
      parts.append(value if alone else f'{name}={value}')
  return ', '.join(parts) or setting.label


def references(results: Results, metric: str) -> dict[str, float]:
  """Returns the scores of the teacher and of the undistilled student."""
  names = {folder.TEACHER: 'teacher', folder.BEFORE: 'undistilled student'}
  # Where there are several references, none is that of all settings.
  if len(results.references) != 1:
    return {}
  (known,) = results.references.values()
  return {
    names[key]: system.scores[metric]
    for key, system in sorted(known.items())
    if metric in system.scores
  }


def seeds(results: Results, metric: str) -> str:
  """Says what the values are means of, and the intervals over what."""
  found = [each.estimate(metric) for each in results.settings if each.systems]
  counts = sorted({each.seeds for each in found})
  over = max((each.over for each in found), key=len)
  if counts[-1] == 1:
    text = 'one seed'
  elif len(counts) == 1:
    text = f'means of {counts[0]} seeds'
  else:
    text = f'means of {counts[0]} to {counts[-1]} seeds'
  return f'{text}, 95% intervals over {over}' if over else text


def alike(best: Best) -> str:
  """Says how many settings can't be told from the best."""
  count = len(best.alike)
  if not count:
    return ''
  return f"{count} other{'s' * (count > 1)} can't be told from it; "
