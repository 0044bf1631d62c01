"""What a benchmark writes: JSON with the machine's facts, and Markdown."""

import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import timing

_PACKAGES = ('kdjax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')
_PEERS = ('torch', 'transformers', 'trl', 'accelerate')


def machine(peers: bool = False) -> dict[str, Any]:
  """Returns what the figures depend on."""
  packages = _PACKAGES + (_PEERS if peers else ())
  return {
    'cpu': _cpu(),
    'cores': os.cpu_count(),
    'memory_gib': round(_memory() / 2**30, 1),
    'devices': _devices(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in packages},
    'load_average': round(os.getloadavg()[0], 2),
    'command': shlex.join(['python', *_command()]),
  }


def _command() -> list[str]:
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  script = ['-m', spec.name] if spec else [sys.argv[0]]
  return [*script, *sys.argv[1:]]


def _cpu() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  lines = path.read_text().splitlines() if path.exists() else []
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return names[0] if names else platform.processor()


def _memory() -> int:
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def _devices() -> list[str]:
  """Those of jax, where this process uses it."""
  jax = sys.modules.get('jax')
  return [device.device_kind for device in jax.devices()] if jax else []


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns rows as a table, with the first row's keys as columns.

  >>> print(markdown([{'a': 1, 'b': 'x'}]))
  | a | b |
  | --- | --- |
  | 1 | x |
  """
  names = list(rows[0]) if rows else []
  lines = [names, ['---'] * len(names)]
  lines += [[cell(row.get(name, '')) for name in names] for row in rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def cell(value: Any) -> str:
  """Returns a value as text, numbers with three digits, NaN as a dash.

  >>> cell(1234.5), cell(0.01234), cell(math.nan)
  ('1234', '0.0123', '—')
  """
  if not isinstance(value, float):
    return str(value)
  if math.isnan(value):
    return '—'
  return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'


def spread(found: timing.Spread, unit: float = 1.0) -> str:
  """Returns 'median (low–high)'."""
  low, high = cell(found.low / unit), cell(found.high / unit)
  return f'{cell(found.median / unit)} ({low}–{high})'


def rows(rounds: timing.Rounds, base: str) -> list[dict[str, Any]]:
  """Returns a row a variant: its time, and that over the base's."""
  found = []
  for name in rounds.samples[0]:
    each = rounds.seconds(name)
    found.append(
      {
        'variant': name,
        'ms (quartiles)': spread(each, 1e-3),
        f'times {base} (range)': spread(rounds.ratios(name, base)),
        'n': each.n,
        'dropped': each.dropped,
      }
    )
  return found


def write(
  out: str | os.PathLike | None,
  name: str,
  record: Mapping[str, Any],
  text: str,
) -> None:
  """Prints a text; writes it as `name`.md and the record as `name`.json."""
  print(f'\n{text}\n', flush=True)
  if out is None:
    return
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / f'{name}.md').write_text(text + '\n', encoding='utf-8')
  content = json.dumps(plain(record), indent=1) + '\n'
  (folder / f'{name}.json').write_text(content, encoding='utf-8')


def plain(value: Any) -> Any:
  """Returns what JSON holds: NaN is null, structs are objects."""
  if hasattr(value, '__dataclass_fields__'):
    value = {k: getattr(value, k) for k in value.__dataclass_fields__}
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def heading(
  title: str, facts: Mapping[str, Any], limit: float = timing.LIMIT
) -> str:
  """Returns what stands above a table: where it comes from, and how sure."""
  where = ', '.join(facts['devices']) or facts['cpu']
  versions = ', '.join(f'{k} {v}' for k, v in facts['versions'].items())
  return (
    f'### {title}\n\n'
    f'`{facts["command"]}` on {where} ({facts["cpu"]}, {facts["cores"]} '
    f'cores), Python {facts["python"]}, {versions}. Medians; samples during '
    f'which others took over {limit:.0%} of the CPU are dropped.\n'
  )


def parser(doc: str, shape: str, rounds: int = 7) -> argparse.ArgumentParser:
  """Returns the flags that all benchmarks share."""
  made = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  made.add_argument('--shape', default=shape, help='a name in shapes.SHAPES')
  for name in ('batch', 'prompt', 'response', 'vocabulary'):
    made.add_argument(f'--{name}', type=int, help="in place of the shape's")
  made.add_argument(
    '--dtype', default='float32', choices=('float32', 'bfloat16')
  )
  made.add_argument('--rounds', type=int, default=rounds)
  made.add_argument('--calls', type=int, default=1, help='calls a sample')
  made.add_argument(
    '--limit',
    type=float,
    default=timing.LIMIT,
    help='share of the CPU that others may take; beyond, a sample is dropped',
  )
  made.add_argument('--out', help='folder for .json and .md')
  return made


def publish(
  args: argparse.Namespace,
  name: str,
  title: str,
  record: Mapping[str, Any],
  note: str = '',
) -> None:
  """Writes and prints a record's `rows` under a heading, and a note below."""
  lines = [
    heading(title, record['machine'], args.limit),
    markdown(record['rows']),
  ]
  text = '\n'.join([*lines, *(['', note] if note else [])])
  write(args.out, name, record, text)
