"""The command line: python -m kdjax.main --config=FILE[:ARGS] --workdir=DIR."""

import logging
import os
import sys

import absl.logging
from absl import app

from kdjax import command


def main(unused_argv: list[str]) -> None:
  _quiet()
  mode, workdir = command.MODE.value, command.WORKDIR.value
  if mode == 'plan':
    # Whatever accelerator is here, it isn't what is planned for.
    os.environ['JAX_PLATFORMS'] = 'cpu'
  # Late, so that --help is quick.
  from kdjax import (
    checks,
    compilation,
    distributed,
    evaluate,
    generate,
    plan,
    train,
  )

  try:
    config = checks.validate(command.CONFIG.value, mode)
    if mode == 'plan':
      plan.plan(config, workdir, command.TOPOLOGY.value)
      return
    homes = {'train': train, 'evaluate': evaluate, 'generate': generate}
    with distributed.joined():
      compilation.keep(workdir)
      getattr(homes[mode], mode)(config, workdir)
  # What a user can mend is said in one message, without a stack of calls.
  except (ValueError, OSError, ImportError, FloatingPointError) as error:
    if command.DEBUG.value:
      raise
    sys.exit(f'kdjax: {error}')


def _quiet() -> None:
  """Shows what kdjax logs, and of the libraries what is wrong."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
  absl.logging.set_verbosity(absl.logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  log = logging.getLogger('kdjax')
  log.addHandler(handler)
  log.setLevel(logging.INFO)
  log.propagate = False


if __name__ == '__main__':
  app.run(main, flags_parser=command.parse)
