"""The flags of `kdjax.main`, and how what is wrong with them is said."""

import sys

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
  'topology', None, 'TPUs to plan for, such as v5e:4x4. None has to be here.'
)
DEBUG = flags.DEFINE_bool('debug', False, 'Show the stack of calls of errors.')

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
  '--mode=plan, and no other, wants --topology, such as v5e:4x4.',
)


def parse(argv: list[str]) -> list[str]:
  """Parses the command line; exits with one message where that fails."""
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise ValueError(f'unexpected arguments {rest[1:]}')
    CONFIG.value.keys()  # raises if the file could not be read
    return rest
  except (flags.Error, OSError, LookupError, TypeError, ValueError) as error:
    if '--debug' in argv:
      raise
    # The message about an error within a config file holds a whole stack.
    reason = str(error).strip().splitlines()[-1].strip()
    sys.exit(f'kdjax: cannot read the command line or the config: {reason}')
