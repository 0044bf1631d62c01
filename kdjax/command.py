"""The flags of `kdjax.main`, and how mistakes in them are reported."""

import sys
import traceback

import ml_collections
from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A config file, with arguments after a colon. --config.KEY=VALUE sets a key.',
  lock_config=False,
  accept_new_attributes=True,  # unknown keys are reported with all else
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run writes. The same command resumes it.'
)
MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'evaluate', 'generate', 'plan'],
  'Distil, score models on the test split, write responses as a data set, or '
  'say what a run needs of the TPUs of --topology, and whether it fits.',
)
TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'TPUs to plan for, such as v5e:4x4. None needs to be here.'
)
DEBUG = flags.DEFINE_bool(
  'debug', False, 'Show the full traceback of an error.'
)

flags.mark_flag_as_required('config')
flags.register_validator(
  'workdir',
  lambda workdir: '://' not in (workdir or ''),
  'must be a directory: mount the bucket, and give its path.',
)
flags.register_multi_flags_validator(
  ['workdir', 'mode'],
  lambda given: given['workdir'] or given['mode'] == 'plan',
  'Flag --workdir must have a value other than None.',
)
flags.register_multi_flags_validator(
  ['topology', 'mode'],
  lambda given: bool(given['topology']) == (given['mode'] == 'plan'),
  '--mode=plan, and no other, needs --topology, such as v5e:4x4.',
)


def parse(argv: list[str]) -> list[str]:
  """Parses the command line; exits with one message where that fails."""
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise ValueError(f'unexpected arguments {rest[1:]}')
    if not isinstance(CONFIG.value, ml_collections.ConfigDict):
      CONFIG.value.keys()  # raises what kept the file from being read
      raise ValueError(
        f'get_config returned {type(CONFIG.value).__name__}: expected the '
        'ConfigDict that kdjax.config.default() makes'
      )
    return rest
  except Exception as error:  # a config file is a program, and may raise any
    if '--debug' in argv:
      raise
    sys.exit(
      f'kdjax: cannot read the command line or the config: {_why(error)}'
    )


def _why(error: Exception) -> str:
  """Returns an error on one line; with its place, where it is a program's."""
  # The message about an error within a config file may hold a whole stack.
  reason = next(reversed(str(error).strip().splitlines()), '').strip()
  if isinstance(error, SyntaxError):
    return f'{error.filename}:{error.lineno}: {error.msg}'
  if isinstance(error, KeyError):
    return f'there is no {reason}'
  if isinstance(error, (flags.Error, OSError, ValueError)):
    return reason
  frame = traceback.extract_tb(error.__traceback__)[-1]
  here = f'{frame.filename}:{frame.lineno}: {type(error).__name__}: '
  return reason if 'site-packages' in here else here + reason
