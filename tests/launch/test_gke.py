"""The manifests are what Kubernetes takes, and name the right machines."""

import pathlib
import signal
import subprocess
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from launch import gke
from tests.launch import jobset

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ['--config=configs/gkd_xsum.py', '--a={it\'s "b": #c}', '--d=\\u00e9$e']
MACHINES = {'tpu': 'v5e:4x4', 'gpu': 'nvidia-h100-80gb:2x8'}


def render(kind, machines=None, **values):
  defaults = dict(name='run', image='a/b:c', claim='disk', restarts=3, chips=4)
  command = ['python', '-m', 'kdjax.main', *FLAGS]
  return gke.render(
    kind, machines or MACHINES[kind], command, **{**defaults, **values}
  )


def job(manifest):
  (replicated,) = manifest['spec']['replicatedJobs']
  return replicated['template']


def container(manifest):
  (found,) = job(manifest)['spec']['template']['spec']['containers']
  return found


def validate(manifest):
  """Raises where the cluster would refuse the manifest or drop a field."""
  jsonschema.validate(manifest, jobset.SCHEMA)
  kubernetes_validate.validate(
    {
      'apiVersion': 'batch/v1',
      'kind': 'Job',
      'metadata': {'name': 'job'},
      **job(manifest),
    },
    kubernetes_validate.latest_version(),
    strict=True,
  )


@pytest.mark.parametrize('kind', MACHINES)
def test_manifest_is_valid_and_a_misspelt_field_is_not(kind):
  text = render(kind)
  manifest = yaml.safe_load(text)
  validate(manifest)
  # The fields that a restart and a stop in time hang on, and one a layer.
  for field in (
    'failurePolicy',
    'maxRestarts',
    'replicatedJobs',
    'onJobFailureReasons',
    'replicas',
    'backoffLimit',
    'onExitCodes',
    'terminationGracePeriodSeconds',
    'nodeSelector',
    'limits',
    'persistentVolumeClaim',
  ):
    assert text.count(f' {field}:') == 1
    wrong = yaml.safe_load(text.replace(f'{field}:', f'{field}s:'))
    with pytest.raises(
      (jsonschema.ValidationError, kubernetes_validate.ValidationError)
    ) as refused:
      validate(wrong)
    assert field in str(refused.value)


@pytest.mark.parametrize('kind', MACHINES)
def test_pods_run_the_command_as_it_was_given(kind):
  manifest = yaml.safe_load(render(kind))
  assert container(manifest)['command'][3:] == FLAGS


@pytest.mark.parametrize('kind', MACHINES)
def test_errors_are_tried_again_so_often_and_stops_without_end(kind):
  manifest = yaml.safe_load(render(kind, restarts=7))
  policy = manifest['spec']['failurePolicy']
  assert policy['maxRestarts'] == 7
  (rule,) = policy['rules']
  assert rule['action'] == 'RestartJobSetAndIgnoreMaxRestarts'
  # The reason that Kubernetes gives where FailJob ended a Job.
  assert rule['onJobFailureReasons'] == ['PodFailurePolicy']
  pods = job(manifest)['spec']['podFailurePolicy']['rules']
  assert all(each['action'] == 'FailJob' for each in pods)
  codes = [x['onExitCodes']['values'] for x in pods if 'onExitCodes' in x]
  assert codes == [[128 + signal.SIGTERM]]


@pytest.mark.parametrize(
  'machines, chips, hosts, accelerator, a_host',
  [
    ('v5e:4x4', 4, 4, 'tpu-v5-lite-podslice', 4),
    ('v5e:2x4', 8, 1, 'tpu-v5-lite-podslice', 8),
    ('v5e:1x1', 4, 1, 'tpu-v5-lite-podslice', 1),
    ('v6e:16x16', 4, 64, 'tpu-v6e-slice', 4),
    ('v5p:2x2x4', 4, 4, 'tpu-v5p-slice', 4),
  ],
)
def test_tpu_slice_has_a_pod_a_host(
  machines, chips, hosts, accelerator, a_host
):
  manifest = yaml.safe_load(render('tpu', machines, chips=chips))
  spec = job(manifest)['spec']
  assert spec['parallelism'] == spec['completions'] == hosts
  assert container(manifest)['resources']['limits'] == {
    'google.com/tpu': a_host
  }
  assert spec['template']['spec']['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': accelerator,
    'cloud.google.com/gke-tpu-topology': machines.partition(':')[2],
  }


def test_gpu_pods_are_told_who_their_peers_are():
  manifest = yaml.safe_load(render('gpu'))
  (replicated,) = manifest['spec']['replicatedJobs']
  spec = job(manifest)['spec']
  assert spec['parallelism'] == spec['completions'] == 2
  limits = container(manifest)['resources']['limits']
  assert limits == {'nvidia.com/gpu': 8}
  env = {entry.pop('name'): entry for entry in container(manifest)['env']}
  # JobSet names pods SET-JOB-JOBINDEX-PODINDEX, in the domain SET.
  first = f'run-{replicated["name"]}-0-0.run'
  ports = [str(p['containerPort']) for p in container(manifest)['ports']]
  assert env['JAX_COORDINATOR_ADDRESS'] == {'value': f'{first}:{ports[-1]}'}
  assert env['JAX_NUM_PROCESSES'] == {'value': '2'}


@pytest.mark.parametrize(
  'kind, values, message',
  [
    ('tpu', {'machines': 'v5e'}, 'as v5e:4x4'),
    ('tpu', {'machines': 'v9:4x4'}, 'one of v4, v5e, v5p, v6e'),
    ('tpu', {'machines': 'v5e:3x3'}, 'not a multiple of 4'),
    ('gpu', {'machines': 'nvidia-l4:8'}, 'as v5e:4x4'),
    ('gpu', {'machines': 'nvidia-l4:2x2x2'}, 'nodes times GPUs'),
    ('gpu', {'name': 'My_Run'}, 'at most 40'),
  ],
)
def test_what_cannot_be_is_refused(kind, values, message):
  with pytest.raises(ValueError, match=message):
    render(kind, **values)


def test_command_line_prints_the_manifest():
  printed = subprocess.run(
    [sys.executable, 'launch/gke.py', 'tpu', 'v5e:4x4', '--name=run']
    + ['--image=a/b:c', '--claim=disk', '--restarts=3', '--', *FLAGS],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert printed == render('tpu')
