"""Configs that describe no model are told from those that do."""

import dataclasses

import pytest

from kdjax.models import config_checks, families

LLAMA = {
  'model_type': 'llama',
  'vocab_size': 12,
  'hidden_size': 4,
  'intermediate_size': 6,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
}


@pytest.mark.parametrize(
  'changes',
  [
    {'num_hidden_layers': 1025},
    {'hidden_size': 0},
    {'hidden_size': -4},
    {'hidden_size': 4.0},
    {'hidden_size': '4'},
    {'num_attention_heads': True},
    {'sliding_window': -1},
  ],
)
def test_sizes(changes):
  (name,) = changes
  config_checks.check_sizes(LLAMA)
  config_checks.check_sizes({**LLAMA, 'sliding_window': 0, 'head_dim': None})
  with pytest.raises(ValueError, match=f'{name}=.*expected a whole number'):
    config_checks.check_sizes({**LLAMA, **changes})


def test_all_sizes_are_listed_at_once():
  with pytest.raises(ValueError, match='vocab_size=-1: .*; num_hidden_layers'):
    config_checks.check_sizes(
      {**LLAMA, 'vocab_size': -1, 'num_hidden_layers': 10**9}
    )


@pytest.mark.parametrize(
  'changes, tells',
  [
    ({'norm_eps': float('nan')}, 'norm_eps=nan: expected a finite number'),
    ({'norm_eps': 10**400}, 'norm_eps=.*finite number'),
    ({'norm_eps': -1.0}, 'norm_eps=-1.0: expected at least 0'),
    ({'attention_dropout': 1.0}, 'attention_dropout=1.0'),
    ({'activation': ['silu']}, 'activation=.*expected str'),
    ({'activation': 'step'}, 'unknown activation'),
    ({'tied_head': 'yes'}, "tied_head='yes': expected bool"),
    ({'attention_scale': 1j}, 'attention_scale=1j'),
    ({'frequencies': (1.0, float('inf'))}, 'frequencies='),
    ({'start_id': 12}, 'start_id=12: expected an id below 12'),
    ({'heads': 3, 'kv_heads': 2}, '3 heads do not divide into 2'),
  ],
)
def test_values(changes, tells):
  family = families.get(LLAMA)
  config = family.config({**family.DEFAULTS, **LLAMA})
  config_checks.check(config)
  with pytest.raises(ValueError, match=tells):
    config_checks.check(dataclasses.replace(config, **changes))


def test_ids():
  for value, found in ((None, ()), (3, (3,)), ([2, 0], (2, 0)), ([], ())):
    assert config_checks.ids({'eos_token_id': value}, 'eos_token_id') == found
  for value in (-1, True, 1.0, '3', [3, -1], [[3]], {'a': 1}):
    with pytest.raises(ValueError, match='eos_token_id=.*expected an id'):
      config_checks.ids({'eos_token_id': value}, 'eos_token_id')
