"""TensorBoard's event files, written at once and not by a thread.

A thread that a full disk ends leaves the run waiting for it for ever.
"""

import os
import pathlib
import time


class Events:
  """Writes one event file into a directory."""

  def __init__(self, directory: pathlib.Path, start: int = 0):
    """Opens a file.

    Args:
      directory: made if need be.
      start: the first step that is to come: TensorBoard hides what earlier
        files of the directory hold from there on.
    """
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._event, self._summary = event_pb2.Event, summary
    directory.mkdir(parents=True, exist_ok=True)
    # Names tell files apart by seconds, which two starts may share.
    self._writer = event_file_writer.EventsWriter(
      str(directory / 'events'), f'.{os.getpid()}'
    )
    if start:
      begins = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(start, session_log=begins)

  def scalar(self, step: int, name: str, value: float) -> None:
    """Adds a number to a step."""
    self._write(step, summary=self._summary.scalar(name, value))

  def text(self, step: int, name: str, value: str) -> None:
    """Adds a text to a step."""
    self._write(step, summary=self._summary.text(name, value))

  def flush(self) -> None:
    """Hands what was added to the disk."""
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()

  def _write(self, step: int, **content: object) -> None:
    event = self._event(wall_time=time.time(), step=step, **content)
    self._writer.write_event(event)
