"""How far a model in fewer bits is from itself in float32, and its size.

  python -m benchmarks.quantized --model=kdjax:debsum-teacher \
    --task=debsum --vocabulary=debsum --out=runs/benchmarks

Both read a task's gold responses, and their next-token distributions are
compared at every token: forward KL, in nats, and whether the likeliest token is
the same. Any model may be named, by its directory or hub id, with
`--task=file --args='{"path": ...}'` and its tokenizer in `--vocabulary`.
"""

import argparse
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import tables
from kdjax import feed, losses, models, types
from kdjax.config import Task
from kdjax.data import pipeline, tasks, vocabularies
from kdjax.models import kernels

MIB = 2**20


def compare(
  path: str, weights: str, dtype: str, batches: list[types.Batch]
) -> dict[str, Any]:
  """Returns a line of the table: how well a storage agrees, and its size."""
  whole, reference = models.from_pretrained(path)
  model, params = models.from_pretrained(path, dtype, weights=weights)

  def logits(model, params, prompt, tokens):
    found = model.head(params, model.hidden_states(params, prompt, tokens))
    return found[..., : model.num_tokens]

  @jax.jit
  def measure(params, reference, prompt, tokens):
    ours = logits(model, params, prompt, tokens)
    theirs = logits(whole, reference, prompt, tokens)
    same = jnp.argmax(ours, -1) == jnp.argmax(theirs, -1)
    return losses.forward_kl(ours, theirs), same

  params, reference = jax.device_put((params, reference))
  found = []
  for batch in batches:
    gold = batch.responses['data']
    both = measure(params, reference, batch.prompt, gold.tokens)
    found.append([np.asarray(x)[gold.mask] for x in both])
  kl, same = (np.concatenate(x) for x in zip(*found))
  return {
    'weights': weights,
    'computed in': dtype,
    'MiB': kernels.size(params)[1] / MIB,
    'mean KL': float(kl.mean()),
    'KL of 1 in 1,000': float(np.quantile(kl, 0.999)),
    'largest KL': float(kl.max()),
    'same likeliest token, %': 100 * float(same.mean()),
    'tokens': int(kl.size),
  }


def read(args: argparse.Namespace) -> list[types.Batch]:
  """Returns the first gold responses of a split, in batches."""
  vocabulary = vocabularies.load(args.vocabulary)
  settings = Task(
    name=args.task,
    args=json.loads(args.args),
    vocabulary=args.vocabulary,
    max_prompt_tokens=args.prompt,
    max_response_tokens=args.response,
    on_long='truncate',
  )
  task = tasks.get(settings.name, **settings.args)
  examples = feed.examples(
    settings, task, args.split, vocabulary, args.examples
  )
  shapes = feed.shapes(settings, vocabulary)
  size = min(args.batch, args.examples)
  batches = pipeline.eval_batches(examples, size, **shapes)
  return [batch for batch, valid in batches if valid == size]


def main(argv: list[str] | None = None) -> dict[str, Any]:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', default='kdjax:debsum-teacher')
  parser.add_argument('--task', default='debsum')
  parser.add_argument('--args', default='{}', help="the task's own, as JSON")
  parser.add_argument('--vocabulary', default='debsum')
  parser.add_argument('--split', default='validation')
  parser.add_argument('--examples', type=int, default=512)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--prompt', type=int, default=64)
  parser.add_argument('--response', type=int, default=24)
  parser.add_argument('--out', help='a folder for JSON and Markdown')
  args = parser.parse_args(argv)
  batches = read(args)
  cases = [
    ('float32', 'bfloat16'),
    ('bfloat16', 'bfloat16'),
    ('bfloat16', 'float32'),
    ('int8', 'bfloat16'),
    ('int8', 'float32'),
  ]
  rows = [compare(args.model, *case, batches) for case in cases]
  record = {'machine': tables.machine(), 'rows': rows}
  name = pathlib.PurePath(args.model.replace(':', '-')).name
  title = f'### {args.model} on {args.task}\n\n`{record["machine"]["command"]}`'
  text = f'{title}\n\n{tables.markdown(rows)}'
  tables.write(args.out, f'quantized-{name}', record, text)
  return record


if __name__ == '__main__':
  main()
