"""The TPU VM script asks for slices, and starts over where that helps."""

import os
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
QUEUED = 'gcloud compute tpus queued-resources'
CREATE = (
  f'{QUEUED} create run --zone=z --node-id=run '
  '--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot'
)
DELETE = f'{QUEUED} delete run --zone=z --force --quiet'
COMMAND = (
  'cd /shared && exec python -m kdjax.main --config=a\\ b --workdir=/shared/run'
)
SSH = 'gcloud compute tpus tpu-vm ssh run --zone=z --worker=all'

# Answers `describe` with the lines of `states`, one a call, and `ssh` with the
# codes of `codes`; writes the other calls down.
GCLOUD = """#!/usr/bin/env bash
next() { sed -n 1p "$1"; sed -i 1d "$1"; }
case "$*" in
  *' describe '*) next states ;;
  *' ssh '*) echo ssh >> calls; exit "$(next codes)" ;;
  *) echo gcloud "$@" >> calls ;;
esac
"""


@pytest.fixture
def launch(tmp_path):
  """Returns a function of states, codes, variables to the script's result."""
  (tmp_path / 'gcloud').write_text(GCLOUD)
  (tmp_path / 'gcloud').chmod(0o755)

  def run(states=(), codes=(), **variables):
    for name, values in dict(states=states, codes=codes, calls=()).items():
      (tmp_path / name).write_text(''.join(f'{value}\n' for value in values))
    env = dict(TPU='run', ZONE='z', TYPE='v5litepod-16', SETUP='cd /shared')
    path = f'{tmp_path}:{os.environ["PATH"]}'
    done = subprocess.run(
      ['bash', ROOT / 'launch' / 'tpu_vm.sh']
      + ['--config=a b', '--workdir=/shared/run'],
      cwd=tmp_path,
      env={**os.environ, **env, 'PATH': path, 'PAUSE': '0', **variables},
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )
    assert (tmp_path / 'codes').read_text() == ''
    return done, (tmp_path / 'calls').read_text().splitlines()

  return run


def test_dry_run_prints_the_commands(launch):
  done, calls = launch(DRY_RUN='1')
  assert [shlex.split(line) for line in done.stdout.splitlines()] == [
    CREATE.split(),
    [*SSH.split(), f'--command={COMMAND}'],
    DELETE.split(),
  ]
  # What a worker's shell makes of it.
  assert shlex.split(COMMAND)[-2:] == ['--config=a b', '--workdir=/shared/run']
  assert calls == []


@pytest.mark.parametrize(
  'kind, runtime',
  [
    ('v6e-16', 'v2-alpha-tpuv6e'),
    ('v5p-16', 'v2-alpha-tpuv5'),
    ('v4-16', 'tpu-ubuntu2204-base'),
  ],
)
def test_workers_get_the_system_of_their_kind(launch, kind, runtime):
  done, _ = launch(DRY_RUN='1', TYPE=kind, TIER='')
  create = shlex.split(done.stdout.splitlines()[0])
  assert f'--runtime-version={runtime}' == create[-1]


@pytest.mark.parametrize('name', ['TPU', 'ZONE', 'TYPE', 'SETUP'])
def test_missing_setting_is_named(launch, name):
  done, calls = launch(**{name: ''})
  assert done.returncode != 0 and name in done.stderr
  assert calls == []


def test_slice_is_waited_for_and_given_back(launch):
  done, calls = launch(['', 'PROVISIONING', 'ACTIVE'], [0])
  assert done.returncode == 0
  assert calls == [CREATE, 'ssh', DELETE]


def test_preempted_slice_is_replaced(launch):
  states = ['', 'ACTIVE', 'SUSPENDING', 'SUSPENDED', '', 'ACTIVE']
  done, calls = launch(states, [255, 0])
  assert done.returncode == 0
  assert calls == [CREATE, 'ssh', DELETE, CREATE, 'ssh', DELETE]


def test_stopped_run_goes_on_and_an_error_does_not(launch):
  done, calls = launch(['ACTIVE', 'ACTIVE', 'ACTIVE', 'ACTIVE'], [143, 1])
  assert done.returncode == 1
  assert 'would come again' in done.stderr
  assert calls == ['ssh', 'ssh']  # the slice is kept to look at


def test_refused_request_ends(launch):
  done, calls = launch(['', 'FAILED'])
  assert done.returncode == 1 and 'refused' in done.stderr
  assert calls == [CREATE]
