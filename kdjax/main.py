"""The command line: python -m kdjax.main --config=FILE[:ARGS] --workdir=DIR."""

import logging
import os
import sys

import absl.logging
from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A config file, with arguments after a colon. --config.KEY=VALUE sets a key.',
  lock_config=False,
  accept_new_attributes=True,  # unknown keys are reported with all else
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run writes. The same command resumes it.'
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'evaluate', 'generate'],
  'Distil, score models on the test split, or write responses as a data set.',
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show the stack of calls of errors.')


def main(unused_argv: list[str]) -> None:
  _quiet()
  # Late, so that --help is quick.
  from kdjax import checks, compilation, generate, report, train

  homes = {'train': train, 'evaluate': report, 'generate': generate}
  run = getattr(homes[_MODE.value], _MODE.value)
  try:
    config = checks.validate(_CONFIG.value, _MODE.value)
    compilation.keep(_WORKDIR.value)
    run(config, _WORKDIR.value)
  # What a user can mend is said in one message, without a stack of calls.
  except (ValueError, OSError, ImportError, FloatingPointError) as error:
    if _DEBUG.value:
      raise
    sys.exit(f'kdjax: {error}')


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; exits with one message where that fails."""
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise ValueError(f'unexpected arguments {rest[1:]}')
    _CONFIG.value.keys()  # raises if the file could not be read
    return rest
  except (flags.Error, OSError, LookupError, TypeError, ValueError) as error:
    if '--debug' in argv:
      raise
    # The message about an error within a config file holds a whole stack.
    reason = str(error).strip().splitlines()[-1].strip()
    sys.exit(f'kdjax: cannot read the command line or the config: {reason}')


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
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_flags)
