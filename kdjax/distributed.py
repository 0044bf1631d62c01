"""Several processes as one: how they meet, tell each other, and part."""

import atexit
import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax import files

logger = logging.getLogger(__name__)

# How long the processes wait for each other at the start.
START_SECONDS = 300

# A process that hasn't been heard of for so long is taken for dead, and JAX
# ends the others.
HEARTBEAT_SECONDS = 30

# Who the processes are, by JAX's own names; `launch/local.py` sets them.
_ADDRESS = 'JAX_COORDINATOR_ADDRESS'
_COUNT = 'JAX_NUM_PROCESSES'
_INDEX = 'JAX_PROCESS_ID'

# What says how many processes a job has. Under SLURM and Open MPI, JAX would
# leave a process one device; one that is alone is to have all of them.
_COUNTS = (_COUNT, 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE')


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """Runs the block in step with the job's other processes, if it has any.

  To be entered before a device is touched. The processes are found as JAX finds
  them: by `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`,
  else on SLURM, Open MPI and Cloud TPUs (on Kubernetes, where it has TPUs).
  `JAX_NUM_PROCESSES=1` says that there are no others.

  One that fails alone leaves at once, and JAX ends the others within
  `HEARTBEAT_SECONDS`: waiting for them at the exit, as it does for those that
  come to their end together, would be waiting for what waits for it.

  Raises:
    ConnectionError: another process is gone.
    ValueError: the environment describes the processes in part.
  """
  # It would take SIGTERM over, which `interruption.Interruption` handles.
  jax.config.update('jax_enable_preemption_service', False)
  _initialize()
  if not leads():
    # Else every process would say what the first one says.
    logging.getLogger(__package__).setLevel(logging.WARNING)
  try:
    yield
  except SystemExit:
    raise  # all of them stop after the same step
  except BaseException as error:
    if jax.process_count() > 1:
      # JAX's own farewell was registered before; the last one runs first.
      atexit.register(_leave, files.exit_code(error))
      if _lost(error):
        raise ConnectionError(
          f'process {jax.process_index()} of {jax.process_count()} has lost '
          f'another one, which says why: {str(error).splitlines()[0]}. The '
          'same command goes on from the last checkpoint.'
        ) from error
    raise


def _initialize() -> None:
  environment = os.environ
  if '1' in (environment.get(name) for name in _COUNTS):
    return
  given = {}
  if _ADDRESS in environment:
    missing = sorted({_COUNT, _INDEX} - set(environment))
    if len(missing) == 1:
      raise ValueError(
        f'{_ADDRESS} is set, but not {missing[0]}: set both {_COUNT} and '
        f'{_INDEX}, or neither where the cluster tells them'
      )
    if not missing:
      given = {
        'num_processes': int(environment[_COUNT]),
        'process_id': int(environment[_INDEX]),
        'cluster_detection_method': 'deactivate',
      }
      logger.info(
        'process %s of %s waits for the others at %s, for %d s at most',
        environment[_INDEX],
        environment[_COUNT],
        environment[_ADDRESS],
        START_SECONDS,
      )
  elif 'KUBERNETES_SERVICE_HOST' in environment and not any(
    name in environment
    for name in ('TPU_WORKER_HOSTNAMES', 'TPU_PROCESS_ADDRESSES')
  ):
    return  # JAX would ask the cluster's own interface, and fail where it can't
  try:
    jax.distributed.initialize(
      initialization_timeout=START_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      **given,
    )
  except ValueError:
    if _ADDRESS in environment:
      raise
    # No cluster that JAX knows: this process is alone.


def _lost(error: BaseException) -> bool:
  """Whether what failed was a collective, because another process is gone."""
  if not isinstance(error, jax.errors.JaxRuntimeError):
    return False
  said = str(error).lower()
  return any(word in said for word in ('gloo', 'nccl', 'connection', 'peer'))


def _leave(code: int) -> None:
  """Ends the process without waiting for the others."""
  sys.stdout.flush()
  sys.stderr.flush()
  if leads():
    # The others lose their connection with this one; those that fail for the
    # same reason say so first.
    time.sleep(2)
  os._exit(code)


def leads() -> bool:
  """Returns whether this process is the one that prints and writes."""
  return jax.process_index() == 0


def meet(what: str) -> None:
  """Waits until all processes are here; `what` says where that is."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def first(number: int) -> int:
  """Returns the number of the first process, in all of them."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def largest(number: int) -> jax.Array:
  """Returns the largest of the processes' numbers, [] int32.

  All must call. The devices find it after what they were given before: whoever
  reads it at once waits for that.
  """
  mesh = Mesh(np.array(jax.devices()), 'devices')
  numbers = jax.make_array_from_callback(
    (mesh.size,),
    NamedSharding(mesh, PartitionSpec('devices')),
    lambda _: np.array([number], np.int32),
  )
  return _max(NamedSharding(mesh, PartitionSpec()))(numbers)


@functools.cache
def _max(sharding: NamedSharding) -> Any:
  return jax.jit(jnp.max, out_shardings=sharding)


def fetch(tree: Any) -> Any:
  """Returns arrays whole, on the host, in every process.

  Where processes hold parts they send these to each other, so all must call.
  """

  def whole(x):
    here = not isinstance(x, jax.Array) or (
      x.is_fully_addressable or x.is_fully_replicated
    )
    return x if here else multihost_utils.process_allgather(x, tiled=True)

  return jax.device_get(jax.tree.map(whole, tree))


def rows(array: Any, once: bool = False) -> np.ndarray:
  """Returns which rows of a global array [B, ...] this process holds.

  Args:
    array: split over its rows, or the same in every process.
    once: leaves out those that a process before this one holds, too.
  """
  count = array.shape[0]
  if not isinstance(array, jax.Array) or array.is_fully_addressable:
    return np.arange(0 if once and not leads() else count)
  held = [
    np.arange(*shard.index[0].indices(count))
    for shard in array.addressable_shards
    if not once or shard.replica_id == 0
  ]
  return np.unique(np.concatenate([np.arange(0), *held]))


def merge(values: np.ndarray, like: Any) -> np.ndarray:
  """Returns values of all rows, in every process, from those of its own rows.

  Where several processes hold a row, the first one's value is taken.

  Args:
    values: [n * G, ...] numbers about the n `rows` of `like`, G a row.
    like: a global array [B, ...].

  Returns:
    [B * G, ...], on the host.
  """
  here, mine = rows(like), rows(like, once=True)
  parts = values.reshape(len(here), -1, *values.shape[1:])
  whole = np.zeros((len(like), *parts.shape[1:]), values.dtype)
  whole[mine] = parts[np.isin(here, mine)]
  summed = multihost_utils.process_allgather(whole).sum(0, dtype=values.dtype)
  return summed.reshape(-1, *values.shape[1:])
