import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from kdjax import models, types
from kdjax.models import kernels, lora

SIZES = {
  'vocab_size': 40,
  'eos_token_id': 1,
  'pad_token_id': 0,
}
CONFIGS = {
  't5': transformers.T5Config(
    d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2, **SIZES
  ),
  'qwen2': transformers.Qwen2Config(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    **SIZES,
  ),
}
QUICK = [('t5', True, 'int8'), ('qwen2', False, 'bfloat16')]
PROMPT = types.Prompt(jnp.array([[5, 6, 7]]), jnp.ones((1, 3), bool))
RESPONSE = jnp.array([[12, 13, 14]])


def logits(model, params):
  hidden = jax.jit(model.hidden_states)(params, PROMPT, RESPONSE)
  return model.head(params, hidden)


def trained(params):
  """Factors as training might leave them: none of them zero."""

  def move(path, x):
    if not jax.tree_util.keystr(path).endswith('.lora_b'):
      return x
    return 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)

  return jax.tree_util.tree_map_with_path(move, params)


# Each value once; the other combinations are slow.
CASES = [
  pytest.param(
    *case,
    marks=() if case in QUICK else pytest.mark.slow,
    id='-'.join(map(str, case)),
  )
  for case in itertools.product(
    CONFIGS, (False, True), ('float32', 'bfloat16', 'int8')
  )
]


@pytest.mark.parametrize('family, scan, weights', CASES)
def test_starts_as_the_model_and_is_exported_merged(
  family, scan, weights, tmp_path
):
  model, before = models.from_config(
    CONFIGS[family], jax.random.key(0), scan=scan, weights=weights
  )
  params = models.add_lora(before, jax.random.key(1), rank=2, alpha=4)
  np.testing.assert_array_equal(logits(model, params), logits(model, before))
  jax.tree.map(np.testing.assert_array_equal, kernels.base(params), before)
  params = trained(params)
  expected = logits(model, params)
  assert np.abs(expected - logits(model, before)).max() > 1e-2

  models.save_pretrained(tmp_path, model, params)
  auto = (
    transformers.AutoModelForSeq2SeqLM
    if family == 't5'
    else transformers.AutoModelForCausalLM
  )
  theirs = auto.from_pretrained(tmp_path).eval()
  given = [torch.tensor(np.asarray(x)) for x in (PROMPT.tokens, RESPONSE)]
  with torch.no_grad():
    if family == 't5':
      found = theirs(input_ids=given[0], labels=given[1].long()).logits
    else:
      found = theirs(input_ids=torch.cat(given, 1)).logits[:, 2:-1]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
    logits(*models.from_pretrained(tmp_path)), expected, rtol=1e-4, atol=1e-4
  )


def test_the_change_is_alpha_over_rank_times_the_factors_product():
  _, before = models.from_config(CONFIGS['qwen2'], jax.random.key(0))
  params = models.add_lora(
    before, jax.random.key(1), rank=2, alpha=3, targets=r'layers_1/.*/k/kernel$'
  )
  params = trained(params)
  for layer in ('layers_0', 'layers_1'):
    found = models.merge(params)['decoder'][layer]
    old, new = before['decoder'][layer], params['decoder'][layer]['attention']
    for name in ('q', 'k', 'v'):
      change = 0
      if (layer, name) == ('layers_1', 'k'):
        factors = new[name]['kernel']
        change = 1.5 * factors.lora_a @ factors.lora_b
      np.testing.assert_allclose(
        found['attention'][name]['kernel'],
        old['attention'][name]['kernel'] + change,
        rtol=1e-5,
        atol=1e-7,
      )


def test_factors_start_apart_and_at_the_inputs_scale():
  _, params = models.from_config(
    {**CONFIGS['qwen2'].to_dict(), 'hidden_size': 256}, jax.random.key(0)
  )
  params = models.add_lora(params, jax.random.key(1), rank=64)
  first, second = (
    params['decoder'][f'layers_{i}']['attention']['q']['kernel'].lora_a
    for i in range(2)
  )
  assert not np.array_equal(first, second)
  np.testing.assert_allclose(np.std(first), 256**-0.5, rtol=0.03)


def test_targets_that_find_nothing_or_too_much_are_refused():
  _, params = models.from_config(CONFIGS['t5'], jax.random.key(0))
  add = lambda **options: models.add_lora(params, jax.random.key(1), **options)
  with pytest.raises(ValueError, match="'c_attn' match no path.*q/ker"):
    add(rank=2, targets='c_attn')
  with pytest.raises(ValueError, match="find .'shared/embed.*not a matrix"):
    add(rank=2, targets='shared')
  with pytest.raises(ValueError, match='rank=0'):
    add(rank=0)


def test_what_trains_is_factors_that_the_pattern_finds():
  paths = ['encoder/q/kernel/lora_b', 'decoder/q/kernel/lora_a']
  others = ['encoder/q/kernel/base', 'decoder/wo/kernel', 'decoder/lora_a/k']
  for pattern, expected in (
    (None, paths),
    ('^decoder', paths[1:]),
    ('encoder|decoder', paths),
    ('lora_b$', paths[:1]),
  ):
    found = re.compile(lora.trainable(pattern))
    assert [p for p in paths + others if found.search(p)] == expected
