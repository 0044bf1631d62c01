"""What a described model's shapes tell, before it is made."""

import pytest

from kdjax import checks


@pytest.mark.parametrize(
  'changes, said',
  [
    (
      {'student__config': {'model_type': 't6'}},
      "model: model_type 't6' is not",
    ),
    (
      {'teacher__config': {'model_type': 't5'}},
      "the t5 config lacks 'd_model'",
    ),
    ({'student__config__d_model': 'x'}, 'student.config makes no model: '),
    ({'student__config__num_layers': None}, 'student.config makes no model: '),
    ({'student__layers': {'middle': 1}}, "layers={'middle': 1}: expected 'enc"),
    (
      {'student__layers': {'encoder': 1.5}},
      "layers={'encoder': 1.5}: expected",
    ),
    ({'student__layers': {'encoder': ()}}, "layers={'encoder': ()}: expected"),
    ({'student__layers': {'encoder': 9}}, '9 of 1 layers cannot be copied'),
    ({'student__layers': {'decoder': (0, 7)}}, 'each from 0 to 0'),
    (
      {'optimizer__trainable': 'layers_7'},
      "'layers_7' matches no parameter",
    ),
    (
      {'student__lora': {'rank': 2, 'targets': 'embedding'}},
      'not a matrix of a layer',
    ),
  ],
)
def test_what_cannot_be_made(problems, tiny, changes, said):
  (found,) = problems(tiny(**changes)).splitlines()
  assert said in found


def test_what_can_be_made(tiny):
  for changes in (
    {'student__layers': {'encoder': 1, 'decoder': (0, 0)}},
    {'optimizer__trainable': 'decoder/layers_0'},
    {'student__scan': True, 'optimizer__trainable': 'decoder/layers/'},
    {'student__lora': {'rank': 2}, 'optimizer__trainable': 'encoder'},
  ):
    checks.validate(tiny(**changes))


def test_copied_attention_is_for_encoder_decoders(problems, tiny):
  gpt2 = {
    'model_type': 'gpt2',
    'n_embd': 16,
    'n_head': 2,
    'n_layer': 1,
    'n_positions': 64,
  }
  found = problems(tiny(student__config=gpt2, student__init='copy'))
  assert "student.init='copy' is for encoder-decoders only" in found
