"""The metrics file, and TensorBoard."""

import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax import distributed, files
from kdjax.metrics.means import summarize
from kdjax.metrics.tensorboard import Events

logger = logging.getLogger(__name__)


class Writer:
  """Writes metrics.jsonl and TensorBoard events, in the first process only.

  A line of metrics.jsonl is a JSON object: 'step', and the metrics by name.
  What isn't finite stands as null, and 'nonfinite' says what it was.
  """

  def __init__(
    self, workdir: str | os.PathLike, start: int = 0, redone: str = ''
  ):
    """Opens the files in `workdir`.

    Args:
      workdir: where the run writes; made if need be.
      start: the first step that is to come. A run that was cut short may have
        written steps that will be written again: these lines go, as does a last
        line that was cut short.
      redone: what names of metrics begin with that will be written again for
        the step before `start`, too; '' where nothing will.

    Raises:
      OSError: the disk is full, or can't be written; names the file or folder.
    """
    self._file = self._events = None
    if not distributed.leads():
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    self._events_path = workdir / 'tensorboard'
    _drop_steps_from(self._path, start, redone)
    self._file = self._path.open('a', encoding='utf-8')
    with files.naming(self._events_path):
      self._events = Events(self._events_path, start)

  def write(self, step: int, metrics: Mapping[str, Any]):
    """Writes numbers, arrays of one number, means and pairs of a step.

    Raises:
      OSError: the disk is full, or can't be written; names the file or folder.
    """
    if self._file is None:
      return
    values = summarize(metrics)
    bad = {k: str(v) for k, v in values.items() if not math.isfinite(v)}
    line = {'step': int(step)}
    line |= {k: None if k in bad else v for k, v in values.items()}
    if bad:
      line['nonfinite'] = bad
    with files.naming(self._path):
      self._file.write(json.dumps(line, allow_nan=False) + '\n')
      self._file.flush()
    with files.naming(self._events_path):
      for name, value in values.items():
        self._events.scalar(step, name, value)
      self._events.flush()

  def write_text(self, step: int, name: str, text: str):
    """Writes a text of a step to TensorBoard."""
    if self._events is not None:
      with files.naming(self._events_path):
        self._events.text(step, name, text)
        self._events.flush()

  def sync(self):
    """Returns once what was written outlives a power cut."""
    if self._file is not None:
      with files.naming(self._path):
        os.fsync(self._file.fileno())

  def close(self):
    """Closes the files."""
    if self._file is not None:
      with files.naming(self._path):
        self._file.close()
      with files.naming(self._events_path):
        self._events.close()


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns the lines of a workdir's metrics.jsonl; null is read as NaN."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  lines = [line for _, line in _parsed(path)]
  return [
    {k: math.nan if v is None else v for k, v in line.items()} for line in lines
  ]


def _parsed(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (text, object) of the lines that are whole."""
  content = path.read_text('utf-8', errors='replace')
  # Not `splitlines`: other characters than this end lines for it, too.
  for number, text in enumerate(content.split('\n'), 1):
    if not text:
      continue
    try:
      line = json.loads(text)
      whole = isinstance(line, dict) and isinstance(line.get('step'), int)
    except (ValueError, RecursionError):
      whole = False
    if whole:
      yield text, line
    else:
      logger.warning('%s: line %d is not a step, dropped', path, number)


def _drop_steps_from(path: pathlib.Path, start: int, redone: str):
  """Drops what will be written again; see `Writer`."""
  if not path.exists():
    return

  def stays(line):
    again = redone and any(name.startswith(redone) for name in line)
    return line['step'] < (start - 1 if again else start)

  kept = [text + '\n' for text, line in _parsed(path) if stays(line)]
  files.write(path, ''.join(kept))
