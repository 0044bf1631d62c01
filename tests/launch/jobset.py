"""The fields of a JobSet, jobset.x-k8s.io/v1alpha2, as a strict JSON schema.

The templates of its Jobs are Kubernetes' own: kubernetes_validate knows those.
"""


def _fields(*required, **properties):
  return {
    'type': 'object',
    'properties': properties,
    'required': list(required),
    'additionalProperties': False,
  }


def _list(items):
  return {'type': 'array', 'items': items}


def _one_of(*values):
  return {'enum': list(values)}


_TEXT = {'type': 'string'}
_FLAG = {'type': 'boolean'}
_COUNT = {'type': 'integer', 'minimum': 0}
_LABEL = {'type': 'string', 'pattern': '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}
_TEXTS = {'type': 'object', 'additionalProperties': _TEXT}

_ACTION = _one_of(
  'FailJobSet',
  'RestartJobSet',
  'RestartJobSetAndIgnoreMaxRestarts',
  'RestartJob',
  'RestartJobAndIgnoreMaxRestarts',
)

_FAILURE_POLICY = _fields(
  maxRestarts=_COUNT,
  restartStrategy=_one_of('Recreate', 'BlockingRecreate', 'InPlaceRestart'),
  rules=_list(
    _fields(
      'name',
      'action',
      name=_TEXT,
      action=_ACTION,
      onJobFailureReasons=_list(_TEXT),
      onJobFailureMessagePatterns=_list(_TEXT),
      targetReplicatedJobs=_list(_LABEL),
    )
  ),
)

_REPLICATED_JOB = _fields(
  'name',
  'template',
  name=_LABEL,
  groupName=_LABEL,
  replicas=_COUNT,
  dependsOn=_list(
    _fields('name', 'status', name=_LABEL, status=_one_of('Ready', 'Complete'))
  ),
  template={'type': 'object'},
)

_SPEC = _fields(
  'replicatedJobs',
  replicatedJobs={**_list(_REPLICATED_JOB), 'minItems': 1},
  failurePolicy=_FAILURE_POLICY,
  successPolicy=_fields(
    'operator',
    operator=_one_of('All', 'Any'),
    targetReplicatedJobs=_list(_LABEL),
  ),
  network=_fields(
    enableDNSHostnames=_FLAG, subdomain=_LABEL, publishNotReadyAddresses=_FLAG
  ),
  coordinator=_fields(
    'replicatedJob', replicatedJob=_LABEL, jobIndex=_COUNT, podIndex=_COUNT
  ),
  suspend=_FLAG,
  managedBy=_TEXT,
  ttlSecondsAfterFinished=_COUNT,
)

SCHEMA = _fields(
  'apiVersion',
  'kind',
  'metadata',
  'spec',
  apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
  kind={'const': 'JobSet'},
  metadata=_fields(
    'name', name=_LABEL, namespace=_LABEL, labels=_TEXTS, annotations=_TEXTS
  ),
  spec=_SPEC,
)
