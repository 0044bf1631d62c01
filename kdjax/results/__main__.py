"""Tables and figures of a sweep: python -m kdjax.results runs/sweep."""

import argparse
import sys
from collections.abc import Sequence

from kdjax.results.writing import write


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the results of the folders and prints them; the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m kdjax.results',
    description='Writes results.csv, results.md and figures/ into the folder '
    'of a sweep or of a run, and prints the tables.',
  )
  parser.add_argument('folder', help="a sweep's --out, or a run's --workdir")
  args = parser.parse_args(argv)
  try:
    print(write(args.folder), end='')
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
