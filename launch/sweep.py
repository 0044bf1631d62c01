"""A sweep: one config, axes, seeds; every combination a run, and one table.

  python launch/sweep.py --config=configs/gkd_xsum.py:embedded \\
      --axis=student_fraction=0,0.25,0.5,1 --axis=beta=0.1,0.5,0.9 --seeds=3 \\
      --out=runs/mixtures

An axis is an argument of the config file, a field of the config
(optimizer.learning_rate), or an argument of its recipe; student_fraction is
GKD's lambda. A config file may have a function `sweep(add)` that calls
add(beta=0.1, ...) for every setting; axes multiply these. What follows `--`
goes to every run, such as -- --config.steps=100.

Names and values are checked before anything starts. The teacher and the student
as it was are scored once, for all runs. The same command goes on where a
killed sweep stopped, runs again what failed, and adds what is new; it ends
with results.csv, results.md, figures/ and report.html in --out.

--analyses=exposure_bias,temperatures adds what --mode=evaluate finds of every
run's student. --print shows the commands, --slurm writes them as an array for
launch/slurm_array.sh; then `--report` makes the table of what is done.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from kdjax import page, results, sweep  # noqa: E402


def main(argv: Sequence[str]) -> int:
  """Runs, prints or writes a sweep; returns the exit code."""
  args, flags = _parse(argv)
  # By default runs/sweep_gkd_xsum, for configs/gkd_xsum.py.
  stem = pathlib.Path(args.config.partition(':')[0]).stem
  out = pathlib.Path(args.out or f'runs/sweep_{stem}')
  try:
    along = [sweep.Axis.parse(text) for text in args.axis]
    planned = sweep.plan(
      args.config, along, range(args.seeds), flags, args.analyses
    )
    if args.print:
      print('\n'.join(job.command(out) for job in planned.jobs))
      return 0
    planned = planned.save(out)
    waiting = [job for job in planned.jobs if not job.done(out)]
    if args.slurm:
      # Analyses read what runs leave: they are the next array.
      first = [job for job in waiting if job.kind != 'analysis']
      print(sweep.write_array(out, first or waiting, args.jobs))
      return 0
    failed = {} if args.report else _run(out, planned, waiting, args)
    _report(out)
  except (ValueError, OSError) as error:
    print(f'sweep.py: {error}', file=sys.stderr)
    return 1
  return 1 if failed else 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  argv = list(argv)
  cut = argv.index('--') if '--' in argv else len(argv)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--config', required=True, metavar='FILE[:ARGS]')
  add('--axis', action='append', default=[], metavar='NAME=VALUE,...')
  add('--seeds', type=int, default=1, help='runs of a setting, from seed 0')
  add('--out', help="the sweep's folder (runs/sweep_FILE)")
  add('--analyses', default='', metavar='NAME,...')
  add('--jobs', type=int, default=1, help='runs at once')
  add('--gpus', action='store_true', help='a GPU for each of --jobs')
  ways = parser.add_mutually_exclusive_group()
  ways.add_argument('--print', action='store_true', help='show the commands')
  ways.add_argument('--slurm', action='store_true', help='write an array')
  ways.add_argument('--report', action='store_true', help='only the results')
  args = parser.parse_args(argv[:cut])
  if args.seeds < 1 or args.jobs < 1:
    parser.error('--seeds and --jobs must be at least 1')
  return args, argv[cut + 1 :]


def _run(
  out: pathlib.Path,
  planned: sweep.Sweep,
  waiting: Sequence[sweep.Job],
  args: argparse.Namespace,
) -> dict[str, int]:
  done, total = len(planned.jobs) - len(waiting), len(planned.jobs)
  print(f'{total} runs, {done} of them done, {args.jobs} at once, in {out}')
  begin, ended = time.monotonic(), 0

  def told(job: sweep.Job, code: int, seconds: float) -> None:
    nonlocal ended
    ended += 1
    left = (time.monotonic() - begin) / ended * (len(waiting) - ended)
    state = f'FAILED, see {out / job.name}/failed.txt' if code else 'done'
    print(
      f'[{done + ended}/{total}] {job.name}: {state} ({seconds:.0f} s; about '
      f'{left / 60:.0f} min left)',
      flush=True,
    )

  options = {'at_once': args.jobs, 'gpus': args.gpus, 'told': told}
  first = [job for job in waiting if job.kind != 'analysis']
  failed = sweep.execute(out, first, **options)
  # What these read is there now, except for runs that failed.
  rest = [
    job for job in waiting if job.kind == 'analysis' and job.name not in failed
  ]
  failed |= sweep.execute(out, rest, **options)
  if failed:
    print(f'{len(failed)} of {total} failed; the same command tries them again')
  return failed


def _report(out: pathlib.Path) -> None:
  print(results.write(out))
  page.write(out)
  print(f'report: {out}/report.html')


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
