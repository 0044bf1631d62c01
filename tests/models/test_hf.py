import types

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from kdjax.models import families, hf

TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b.bias': np.ones(4, np.float32),
}


def same(a, b):
  assert sorted(a) == sorted(b)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_entries_number_layers_on_both_sides():
  entry = hf.Entry('d/layers_*/q/kernel', 'h.*.q.weight')
  assert entry.match('d/layers_12/q/kernel') == 'h.12.q.weight'
  assert entry.match('d/layers_1/q/kernel/x') is None
  assert entry.match('d/layers_x/q/kernel') is None
  two = hf.Entry('a_*/b_*', 'a.*.b.*')
  assert two.match('a_3/b_4') == 'a.3.b.4'


def test_fused_tensors_come_apart_and_together_again():
  whole = np.arange(24.0).reshape(2, 12)
  for transpose in (False, True):
    tensor = whole.T if transpose else whole
    entries = [
      hf.Entry(name, 'qkv', transpose, part, (4, 1, 1))
      for part, name in enumerate('qkv')
    ]
    pieces = [entry.load(tensor) for entry in entries]
    assert [piece.shape for piece in pieces] == [(2, 8), (2, 2), (2, 2)]
    np.testing.assert_array_equal(entries[0].save(pieces), tensor)


def make_family():
  return types.SimpleNamespace(
    __name__='kdjax.models.families.toy',
    TABLE=(
      hf.Entry('embed', 'model.embed'),
      hf.Entry('layers_*/kernel', 'model.*.weight', transpose=True),
    ),
    IGNORED=(r'\d+\.old',),
    PREFIX='model.',
  )


SHAPES = {'embed': (3, 2), 'layers_0/kernel': (2, 4)}


@pytest.mark.parametrize('prefix', ['', 'model.'])
def test_tensors_become_parameters_and_tensors_again(prefix):
  tensors = {
    'model.embed': np.zeros((3, 2)),
    'model.0.weight': np.arange(8.0).reshape(4, 2),
  }
  given = {prefix + k.removeprefix('model.'): v for k, v in tensors.items()}
  given[f'{prefix}0.old'] = np.zeros(1)
  params = hf.from_tensors(make_family(), SHAPES, given)
  np.testing.assert_array_equal(
    params['layers_0/kernel'], tensors['model.0.weight'].T
  )
  same(hf.to_tensors(make_family(), params), tensors)


@pytest.mark.parametrize('prefix', ['', 'model.'])
def test_every_problem_is_listed_at_once(prefix):
  tensors = {
    f'{prefix}0.weight': np.zeros((4, 3)),
    f'{prefix}1.weight': np.zeros((4, 2)),
  }
  with pytest.raises(ValueError) as error:
    hf.from_tensors(make_family(), SHAPES, tensors)
  message = str(error.value)
  assert 'do not fit the toy config' in message
  # As the file has them; what it lacks, as transformers would write it.
  assert 'missing: model.embed (for embed)' in message
  assert f'unused: {prefix}1.weight (4, 2)' in message
  assert f'shape: {prefix}0.weight gives (3, 4), layers_0/kernel' in message
  assert 'layers_0/kernel needs (2, 4)' in message


def test_a_parameter_without_an_entry_is_a_mistake_in_the_table():
  with pytest.raises(LookupError, match='toy matches strange'):
    hf.from_tensors(make_family(), {'strange': (1,)}, {})


@pytest.mark.parametrize('name', sorted(families.FAMILIES))
def test_no_line_of_a_table_stands_twice(name):
  table = families.FAMILIES[name].TABLE
  assert len({entry.ours for entry in table}) == len(table)
  assert len({(entry.theirs, entry.part) for entry in table}) == len(table)


@pytest.mark.parametrize(
  'bos, eos, expected',
  [(4, 5, 4), (None, 5, 5), (None, [6, 5], 6), (99, 5, 5), (99, 99, 0)],
)
def test_start_ids(bos, eos, expected):
  config = {'vocab_size': 37, 'bos_token_id': bos, 'eos_token_id': eos}
  assert hf.start_id(config) == expected


def test_bfloat16_is_saved(tmp_path):
  tensor = np.asarray(jnp.ones((2, 2), jnp.bfloat16))
  safetensors.numpy.save_file({'a': tensor}, tmp_path / 'x')
  loaded = safetensors.torch.load_file(tmp_path / 'x')['a']
  assert loaded.dtype == torch.bfloat16 and (loaded == 1).all()
