"""Prints the JobSet that runs kdjax on GKE. Needs nothing but Python.

    python launch/gke.py tpu v5e:4x4 --image=IMAGE --claim=CLAIM -- \\
      --config=configs/gkd_xsum.py --workdir=/shared/run | kubectl apply -f -
    python launch/gke.py gpu nvidia-h100-80gb:2x8 --image=IMAGE ...

What to change: the machines (a TPU generation with its topology, as --mode=plan
takes it, or a GPU with nodes times GPUs a node); the image, in whose working
directory `python -m kdjax.main` runs; and the claim, a volume that all pods can
write (ReadWriteMany, as Filestore's), which they see as /shared. A pod that is
told to stop saves first, and a restart resumes. `kubectl get jobsets` shows
what runs; `kubectl delete jobset NAME` stops it.
"""

import argparse
import json
import math
import pathlib
import re
import string
import sys

# What GKE's nodes are labelled with.
_TPUS = {
  'v4': 'tpu-v4-podslice',
  'v5e': 'tpu-v5-lite-podslice',
  'v5p': 'tpu-v5p-slice',
  'v6e': 'tpu-v6e-slice',
}


def render(kind: str, machines: str, command: list[str], **values) -> str:
  """Returns the manifest of `kind` for the machines.

  Args:
    kind: 'tpu' or 'gpu', the manifest beside this file.
    machines: 'v5e:4x4', or 'nvidia-h100-80gb:2x8' for two nodes with eight.
    command: what each pod runs.
    **values: name, image, claim, restarts, and chips a TPU host.

  Raises:
    ValueError: machines that can't be, or a name that Kubernetes refuses.
  """
  name, _, topology = machines.partition(':')
  if not re.fullmatch(r'\d+(x\d+)+', topology):
    raise ValueError(f'{machines!r}: as v5e:4x4 or nvidia-h100-80gb:2x8')
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', values['name']):
    raise ValueError(
      f'--name={values["name"]!r}: at most 40 of a-z, 0-9 and -, a letter first'
    )
  sizes = [int(size) for size in topology.split('x')]
  if kind == 'gpu':
    if len(sizes) != 2:
      raise ValueError(f'{machines!r}: nodes times GPUs per node, such as 2x8')
    hosts, values['chips'] = sizes
  else:
    if name not in _TPUS:
      raise ValueError(f'{machines!r}: one of {", ".join(_TPUS)}')
    values['chips'] = min(values['chips'], math.prod(sizes))
    hosts, rest = divmod(math.prod(sizes), values['chips'])
    if rest:
      raise ValueError(
        f'{machines!r}: not a multiple of {values["chips"]} chips'
      )
    name = _TPUS[name]
  template = pathlib.Path(__file__).with_name(f'gke_{kind}.yaml').read_text()
  return string.Template(template).substitute(
    {
      **values,
      'accelerator': name,
      'topology': topology,
      'hosts': hosts,
      'command': json.dumps(command),  # JSON is YAML
    }
  )


def main(argv: list[str]) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('kind', choices=['tpu', 'gpu'])
  parser.add_argument('machines')
  parser.add_argument('--image', required=True)
  parser.add_argument('--claim', required=True)
  parser.add_argument('--name', default='kdjax')
  parser.add_argument('--chips', type=int, default=4, help='of a TPU host')
  parser.add_argument(
    '--restarts', type=int, default=10, help='after errors, at most'
  )
  parser.add_argument('flags', nargs='+', help='of kdjax.main, after --')
  given = vars(parser.parse_args(argv))
  command = ['python', '-m', 'kdjax.main', *given.pop('flags')]
  try:
    print(render(command=command, **given), end='')
  except ValueError as error:
    parser.error(str(error))


if __name__ == '__main__':
  main(sys.argv[1:])
