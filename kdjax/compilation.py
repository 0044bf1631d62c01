"""Compiled programs, kept from one run to the next."""

import logging
import os
import pathlib

import jax

logger = logging.getLogger(__name__)

_FOLDER = '.jax_cache'


def keep(workdir: str | os.PathLike) -> None:
  """Has JAX keep compiled programs beside `workdir`, for later processes.

  They lie in `.jax_cache` of the workdir's parent, so that the runs of a study
  share them, unless JAX's own `JAX_COMPILATION_CACHE_DIR` names a folder. What
  is loaded is what was compiled: resumed runs stay exact, also where a compiler
  chooses among kernels by timing them. `JAX_ENABLE_COMPILATION_CACHE=false`
  keeps none. Where the folder can't be written a warning says so.

  Args:
    workdir: where a run writes; it need not exist.
  """
  # JAX's own threshold, 1 s, leaves out most of a run's small programs.
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = pathlib.Path(workdir).absolute().parent / _FOLDER
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
      raise PermissionError(f'no permission to write to {folder}')
  except OSError as error:
    logger.warning(
      'compiled programs are not kept, and the next run compiles anew: %s. '
      'Name another folder with JAX_COMPILATION_CACHE_DIR.',
      error,
    )
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
