"""What is written into a sweep's folder: table, Markdown and figures."""

import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from kdjax.results import figures, style
from kdjax.results.figures import decoding
from kdjax.results.figures import settings as shown
from kdjax.results.markdown import markdown
from kdjax.results.sweep import Results, load

logger = logging.getLogger(__name__)


def write(folder: str | os.PathLike) -> str:
  """Writes results.csv, results.md and figures/*.png and *.svg; returns the md.

  A single run's results.md is its own, and stays.

  Raises:
    ValueError: the folder holds no sweep and no run, or a file isn't what it
      should be.
  """
  results, folder = load(folder), pathlib.Path(folder)
  text = markdown(results)
  if results.metrics:
    results.table().to_csv(folder / 'results.csv', index=False)
  if results.source:
    (folder / 'results.md').write_text(text, encoding='utf-8')
  home = folder / 'figures'
  for name, draw in drawable(results):
    home.mkdir(exist_ok=True)
    figure = draw()
    with style.style():
      figure.savefig(home / f'{name}.png')
      # Without a date, so that the same results are the same file.
      figure.savefig(home / f'{name}.svg', metadata={'Date': None})
  return text


def drawable(results: Results) -> Iterator[tuple[str, Callable[[], Any]]]:
  """Yields the figures for which there is data, by file name."""
  grids = [each for each in results.grids if len(shown.varied(each)) > 1]
  ragged = len(results.grids) > 1
  several = len([each for each in results.settings if each.systems]) > 1
  for metric in results.metrics:
    for part in grids:
      if metric in part.metrics:
        name = f'heat_map_{metric}{_suffix(part, results)}'
        yield name, lambda r=part, m=metric: figures.heat_map(r, m)
    if several and (ragged or not grids):
      yield f'bars_{metric}', lambda m=metric: figures.bars(results, m)
  metric = next(iter(results.metrics), None)
  for part in results.grids:
    if f'eval/{metric}' not in part.logged:
      continue
    frame = part.curves(metric)
    for x in ('step', 'seconds', 'sampled_tokens'):
      if (frame[x] > 0).any():
        name = f'{metric}_against_{x}{_suffix(part, results)}'
        yield name, lambda r=part, x=x: figures.curves(r, metric, x)
  found = decoding.available(results)
  if 'temperatures' in found:
    yield 'temperatures', lambda: figures.temperatures(results)
  if 'exposure_bias' in found:
    yield 'exposure_bias', lambda: figures.exposure_bias(results)


def _suffix(part: Results, results: Results) -> str:
  """What tells a part of a ragged sweep: the values that all of it share."""
  varying = shown.varied(results)
  shared = [
    str(values[0])
    for name, values in part.axes.items()
    if name in varying and len(values) == 1
  ]
  return ''.join(f'_{each}' for each in shared)
