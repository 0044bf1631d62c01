"""Promise 11: what is read from outside can do no more than not be loaded."""

import ast
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from kdjax import models
from tests.reliability.hostile import CLEAR, JSON, LLAMA, T5, outcome

PROMISE = 11
ROOT = pathlib.Path(__file__).parents[2]
# Every key that a family reads.
KEYS = sorted(
  {
    node.value
    for path in (ROOT / 'kdjax/models').rglob('*.py')
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
    if isinstance(node, ast.Constant)
    and isinstance(node.value, str)
    and node.value.isidentifier()
  }
)


@pytest.mark.parametrize('config', [LLAMA, T5], ids=['llama', 't5'])
def test_configs(config, saved, fuzz, tmp_path):
  source = saved(config)
  whole = json.loads((source / 'config.json').read_text())
  folder = pathlib.Path(shutil.copytree(source, tmp_path / 'model'))

  def test(changes, dropped):
    changed = {k: v for k, v in whole.items() if k not in dropped}
    (folder / 'config.json').write_text(json.dumps({**changed, **changes}))
    found = outcome(models.from_pretrained, folder)
    if found is not None:
      model, params = found
      assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
      assert 0 <= model.config.start_id < model.vocab_size
      assert all(i >= 0 for i in model.eos_ids)

  keys = st.sampled_from(sorted({*whole, *KEYS}))
  own = st.sampled_from(sorted(whole))
  fuzz(
    PROMISE,
    'a config.json with values of any kind',
    test,
    st.dictionaries(st.one_of(own, keys), JSON, min_size=1, max_size=3),
    st.sets(own, max_size=1),
    quick=60,
    often=1_500,
  )


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'null',
    b'[]',
    b'"t5"',
    b'\xff{}',
    b'{"a": ' * 100_000,
    b'[' * 1_000_000,
    b'{"vocab_size": ' + b'9' * 10_000 + b'}',
    b'{"model_type": ["llama"]}',
    b'{"model_type": "llama", "hidden_size": NaN}',
  ],
)
@pytest.mark.parametrize(
  'name', ['config.json', 'generation_config.json', 'tokenizer.json']
)
def test_what_is_no_json_object(name, content, folder, tried):
  (folder / name).write_bytes(content)
  if name == 'config.json' or b'model_type' not in content:
    with pytest.raises(CLEAR, match=name):
      models.from_pretrained(folder)
  tried(PROMISE, 'a JSON file that is no object', 1)


SIZES = {
  'layers': {'num_hidden_layers': 1000},
  'all layers': {'num_hidden_layers': 10**12},
  'width': {'hidden_size': 2**60, 'head_dim': 2},
  'head': {'head_dim': 10**10},
  'vocabulary': {'vocab_size': 10**15},
  'negative': {'intermediate_size': -6},
  'fraction': {'num_hidden_layers': 1.5},
  'text': {'hidden_size': '4'},
  'truth': {'num_hidden_layers': True},
}


@pytest.mark.parametrize('name', SIZES)
def test_sizes_that_the_files_do_not_hold(name, folder, tried):
  path = folder / 'config.json'
  whole = json.loads(path.read_text())
  path.write_text(json.dumps({**whole, **SIZES[name]}))
  with pytest.raises(ValueError, match='config.json'):
    models.from_pretrained(folder)
  tried(PROMISE, 'a config.json of sizes that its weights do not have', 1)


OUTSIDE = [
  '../secret',
  '../../etc/passwd',
  '/etc/passwd',
  'sub/model.safetensors',
  '..\\secret',
  '..',
  '.',
  '',
  'a\0b',
  'C:\\secret',
]


@pytest.mark.parametrize('name', OUTSIDE)
def test_shards_are_named_within_the_directory(name, folder, tried):
  shutil.copy(folder / 'model.safetensors', folder.parent / 'secret')
  (folder / 'model.safetensors').unlink()
  index = {'weight_map': {'model.norm.weight': name}}
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps(index))
  with pytest.raises(ValueError, match='not the name of|is a link|not a file'):
    models.from_pretrained(folder)
  tried(PROMISE, 'a shard that is named outside of the directory', 1)


@pytest.mark.parametrize(
  'content', [None, [], {}, {'weight_map': []}, {'weight_map': {'a': 1}}]
)
def test_an_index_that_lists_no_shards(content, folder):
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='index.json'):
    models.from_pretrained(folder)


LINKED = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'model.safetensors',
]


@pytest.mark.parametrize('name', LINKED)
def test_links_that_lead_out_are_not_followed(name, folder, tried):
  elsewhere = folder.parent / 'elsewhere'
  (folder / name).touch()
  (folder / name).rename(elsewhere)
  (folder / name).symlink_to(elsewhere)
  with pytest.raises(ValueError, match=f'{name} is a link to .*elsewhere'):
    models.from_pretrained(folder)
  (folder / name).unlink()
  (folder / name).symlink_to(name)  # to itself
  with pytest.raises(CLEAR, match=name):
    models.from_pretrained(folder)
  (folder / name).unlink()
  os.mkfifo(folder / name)  # nothing would ever come out of it
  with pytest.raises(ValueError, match=f'{name} is not a file'):
    models.from_pretrained(folder)
  tried(PROMISE, 'a link out of the directory, to itself, or a pipe', 3)


def test_links_of_the_hubs_cache_are_followed(folder, tmp_path):
  snapshot = tmp_path / 'models--a--b' / 'snapshots' / '0123'
  blobs = tmp_path / 'models--a--b' / 'blobs'
  snapshot.mkdir(parents=True), blobs.mkdir()
  for i, path in enumerate(folder.iterdir()):
    shutil.copy(path, blobs / str(i))
    (snapshot / path.name).symlink_to(f'../../blobs/{i}')
  models.from_pretrained(snapshot)
  outside = tmp_path / 'models--a--b' / 'refs'
  shutil.copy(folder / 'config.json', outside)
  (snapshot / 'config.json').unlink()
  (snapshot / 'config.json').symlink_to('../../refs')
  with pytest.raises(ValueError, match='is a link to'):
    models.from_pretrained(snapshot)
