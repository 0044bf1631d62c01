"""A data iterator, as orbax wants one."""

import asyncio
import json
import pathlib
from typing import Any

from kdjax import distributed


class Position:
  """What an object with `get_state` is at, as JSON.

  It is the same in every process; the first one writes it.

  Attributes:
    state: what was loaded.
  """

  _NAME = 'position.json'

  def __init__(self, iterator: Any = None):
    self._iterator = iterator
    self.state: Any = None

  async def save(self, directory):
    # The state is read here, in the caller's thread; only the writing waits.
    state = json.dumps(self._iterator.get_state())

    async def write():
      path = pathlib.Path(await directory.await_creation()) / self._NAME
      if distributed.leads():
        await asyncio.to_thread(path.write_text, state)

    return write()

  async def load(self, directory):
    async def read():
      path = pathlib.Path(directory) / self._NAME
      self.state = json.loads(await asyncio.to_thread(path.read_text))

    return read()
