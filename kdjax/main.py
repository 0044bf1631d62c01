"""The command line: python -m kdjax.main --config=FILE[:ARGS] --workdir=DIR.

Exits with 0 at the end of what was asked for, with 1 where the config, the
workdir or the data must be fixed first, with 74 where the disk is full or
can't be written, and with 143 or 130 where SIGTERM or Ctrl-C stopped it. After
the last three the same command goes on from the last checkpoint.
"""

import logging
import os
import signal
import sys

import absl.logging
from absl import app

from kdjax import command


def main(unused_argv: list[str]) -> None:
  _quiet()
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Where nothing is to be saved, a Ctrl-C ends the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
    files,
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
  # What a user can fix is reported in one message, without a traceback.
  except (ValueError, OSError, ImportError, FloatingPointError) as error:
    if command.DEBUG.value:
      raise
    code, hint = files.exit_code(error), ''
    if code == files.EXIT:
      hint = (
        '. What was finished before is whole: make room there, or make it '
        'writable, and the same command goes on.'
      )
    print(f'kdjax: {error}{hint}', file=sys.stderr)
    sys.exit(code)


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
