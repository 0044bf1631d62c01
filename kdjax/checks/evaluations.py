"""What `--mode=evaluate` asks for."""

import math
import os

from kdjax import evaluation
from kdjax.checks.models import given
from kdjax.config import Config


def problems(c: Config, mode: str) -> list[str]:
  """Returns what `--mode=evaluate` can't do; other modes leave it out."""
  known, e = evaluation.ANALYSES, c.eval
  found = []
  if unknown := sorted(set(e.analyses) - set(known)):
    found.append(f'eval.analyses: unknown {unknown}; known are {list(known)}')
  if mode != 'evaluate':
    if e.texts:
      found.append(f'eval.texts={e.texts!r} is only for --mode=evaluate')
    return found
  if e.texts and not os.path.isfile(e.texts):
    found.append(f'eval.texts={e.texts!r}: there is no such file')
  for name in dict.fromkeys(e.analyses):
    if name not in known:
      continue
    needs = sorted(known[name].needs)
    if e.texts and needs:
      found.append(
        f'eval.analyses: {name!r} samples {" and ".join(needs)}, but '
        'eval.texts are scored without a model: leave one of them out'
      )
    elif 'teacher' in needs and not given(c.teacher):
      found.append(
        f'eval.analyses: {name!r} reads the teacher: give teacher.path or '
        'teacher.config'
      )
    if known[name].groups and e.samples_per_prompt < 2:
      found.append(
        f'eval.samples_per_prompt={e.samples_per_prompt}: {name!r} compares '
        'the samples of a prompt: set it to 2 or more'
      )
  return found + _setting_problems(c)


def _setting_problems(c: Config) -> list[str]:
  found, e = [], c.eval
  if 'temperatures' in e.analyses and not e.temperatures:
    found.append('eval.temperatures is empty: give some, such as 0.5,1.0')
  # Written so that NaN is refused.
  if not all(0 < each < math.inf for each in e.temperatures):
    found.append(
      f'eval.temperatures={e.temperatures}: all must be above 0, at which the '
      'samples of a prompt are the same'
    )
  edges = e.length_edges
  if list(edges) != sorted(set(edges)) or min(edges, default=0) < 0:
    found.append(f'eval.length_edges={edges}: they must rise, from 0 or more')
  return found
