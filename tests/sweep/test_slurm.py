"""A sweep as a file of runs that launch/slurm_array.sh reads."""

import os
import pathlib
import subprocess

from kdjax.sweep import jobs, slurm

ROOT = pathlib.Path(__file__).parents[2]


def test_the_arrays_tasks_run_the_jobs(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  todo = [
    jobs.Job('reference', ('--config=configs/gkd_g2p.py',), 'reference'),
    jobs.Job('a', ('--config=configs/gkd_g2p.py', "--config.x=it's one")),
  ]
  out = tmp_path / 'an out'
  out.mkdir()
  command = slurm.write_array(out, todo, 4)
  assert command.startswith('sbatch --array=1-2%4 launch/slurm_array.sh ')
  for number, job in enumerate(todo, 1):
    said = subprocess.run(
      ['bash', 'launch/slurm_array.sh', str(out / 'runs.txt')],
      env={
        **os.environ,
        'SLURM_ARRAY_TASK_ID': str(number),
        'DRY_RUN': '1',
      },
      check=True,
      capture_output=True,
      text=True,
    ).stdout
    for flag in job.arguments(out):
      assert flag.split('=')[0] in said
