"""Tasks of local files read the right columns."""

import json

import numpy as np
import pytest

from kdjax import models
from kdjax.data import loading, pipeline, tasks, vocabularies


def test_file_columns():
  task = tasks.get('file', path='x.jsonl', input='q', target='a', prefix='> ')
  row = {'q': 'why', 'a': ['so', 'thus']}
  example = next(iter(task.format(row, 3)))
  assert example == tasks.Example('3', '> why', 'so', ('so', 'thus'))
  with pytest.raises(ValueError, match="column 'a'; its columns are q, b"):
    list(task.format({'q': 'why', 'b': 'so'}, 3))
  unlabelled = tasks.get('file', path='x.jsonl', input='q')
  assert next(iter(unlabelled.format(row, 0))).target is None


def test_file_pairs():
  task = tasks.get('file', path='x', input='q', target='good', rejected='bad')
  row = {'q': 'why', 'good': 'so', 'bad': 7}
  (example,) = task.format(row, 0)
  assert example == tasks.Example('0', 'why', 'so', ('so',), '7')
  with pytest.raises(ValueError, match="nothing in the column 'bad'"):
    list(task.format({'q': 'why', 'good': 'so'}, 0))


LINES = ['a  library', 'mail\u2028server']


@pytest.mark.parametrize('ending', ['txt', 'jsonl'])
def test_text_reads_every_format(ending, tmp_path):
  path = tmp_path / f'rows.{ending}'
  if ending == 'txt':
    path.write_text(f'{LINES[0]}\r\n\n  \n{LINES[1]}\n', encoding='utf-8')
  else:
    path.write_text(''.join(json.dumps({'text': x}) + '\n' for x in LINES))
  task = tasks.get('text', path=str(path))
  rows = task.source.rows('train')
  examples = [e for i, r in enumerate(rows) for e in task.format(r, i)]
  assert examples == [
    tasks.Example(str(i), '', line, (line,)) for i, line in enumerate(LINES)
  ]
  other = tasks.get('text', path=str(path), column='body')
  with pytest.raises(ValueError, match="column 'body'; its columns are text"):
    list(other.format(rows[0], 0))


TINY = {
  't5': {'d_kv': 4, 'd_ff': 8, 'num_layers': 1, 'd_model': 8, 'num_heads': 2},
  'gpt2': {'n_embd': 8, 'n_layer': 1, 'n_head': 2, 'n_positions': 32},
}


@pytest.mark.parametrize('family', TINY)
def test_models_read_empty_prompts(family, tmp_path, tiny_tokenizer):
  import jax

  path = tmp_path / 'rows.txt'
  path.write_text('a b c\nb\n')
  name = tiny_tokenizer(tmp_path / 'tokenizer')
  vocabulary = vocabularies.load(name)
  task = tasks.get('text', path=str(path))
  examples = loading.load(task, 'train', vocabulary, cache_dir=tmp_path / 'c')
  assert [p.tolist() for p in examples.prompts] == [[], []]
  batches = [
    next(
      pipeline.eval_batches(
        examples, 2, max_prompt_tokens=1, max_response_tokens=4, pad_id=pad
      )
    )[0]
    for pad in (0, 2)
  ]
  assert not batches[0].prompt.mask.any()
  config = {'model_type': family, 'vocab_size': 9, **TINY[family]}
  model, params = models.from_config(config, jax.random.key(0))
  response = batches[0].responses['data']
  first, second = (
    models.logprobs(model, params, batch.prompt, response.tokens)
    for batch in batches
  )
  # What fills the empty prompt doesn't matter.
  np.testing.assert_array_equal(first, second)
  assert np.isfinite(first).all() and (first < 0).all()
