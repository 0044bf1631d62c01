import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, testing, types
from kdjax.sampling import draws
from tests.sampling.cases import (
  KEY,
  ROWS,
  chosen,
  full_logits,
  logprobs,
  make_prompt,
)

# What key 0 gave from the beginning; seeds in papers and logs rest on it.
FIRST_SAMPLES = [
  [1, 0, 0, 0, 0, 0],
  [2, 0, 3, 1, 0, 0],
  [1, 0, 0, 0, 0, 0],
  [2, 1, 0, 0, 0, 0],
  [2, 2, 1, 0, 0, 0],
  [0, 2, 1, 0, 0, 0],
]


def setup(**options):
  return testing.tabular(jax.random.key(1), **options)


def generate(prompt=None, key=KEY, **settings):
  """Samples 6 tokens; equal settings are compiled once for all tests."""
  prompt = make_prompt() if prompt is None else prompt
  return sampling.generate(
    *setup(), prompt, key, **{'max_new_tokens': 6, **settings}
  )


def assert_same(a, b, atol=0.0):
  same = functools.partial(np.testing.assert_allclose, atol=atol, rtol=0)
  jax.tree.map(same, a, b)


def rows_of(tree, rows):
  return jax.tree.map(lambda x: x[jnp.array(rows)], tree)


@functools.cache
def exact_distribution(length, temperature, top_k):
  """Returns the responses to one prompt and their exact probabilities."""
  model, params = setup(vocab_size=3)
  every = testing.responses(3, length)
  prompt = jax.tree.map(lambda x: x.repeat(len(every), 0), make_prompt(1))
  logits = full_logits(model, params, prompt, every) / temperature
  scores = jax.nn.log_softmax(sampling.truncate(logits, top_k=top_k))
  values = chosen(scores, every)
  after = jnp.cumsum(every == 1, axis=1) - (every == 1) > 0
  # After the end only the pad token follows.
  values = jnp.where(after, jnp.where(every == 0, 0.0, -jnp.inf), values)
  return np.asarray(every), np.exp(np.sum(np.asarray(values), axis=1))


@pytest.mark.parametrize('temperature, top_k', [(1.0, 0), (0.6, 0), (1.5, 2)])
def test_frequencies_match_enumeration(temperature, top_k):
  model, params = setup(vocab_size=3)
  rows = 20_000
  prompt = jax.tree.map(lambda x: x.repeat(rows, 0), make_prompt(1))
  response = sampling.generate(
    model,
    params,
    prompt,
    KEY,
    max_new_tokens=3,
    temperature=temperature,
    top_k=top_k,
  )
  every, exact = exact_distribution(3, temperature, top_k)
  np.testing.assert_allclose(exact.sum(), 1.0, rtol=1e-5)
  code = np.asarray(response.tokens) @ [9, 3, 1]
  counts = np.bincount(code, minlength=27)
  # Binomial standard error: at most sqrt(0.25 / 20000) = 0.0035. Five of them
  # leave one chance in 60,000 of failing over the 27 cells, for one fixed key.
  error = 5 * np.sqrt(exact * (1 - exact) / rows) + 1e-6
  assert (np.abs(counts / rows - exact) < error).all()
  assert (exact[code] > 0).all()
  np.testing.assert_allclose(
    np.exp(response.sampling_logprobs.sum(1)), exact[code], rtol=1e-4
  )
  assert (np.asarray(every)[code] == np.asarray(response.tokens)).all()


def test_sampling_logprobs_are_those_of_the_filtered_distribution():
  model, params = setup(vocab_size=5, num_tokens=4)
  prompt = make_prompt(50)
  filters = {'top_k': 3, 'top_p': 0.9, 'min_p': 0.1}
  response = sampling.generate(
    model,
    params,
    prompt,
    KEY,
    max_new_tokens=6,
    min_new_tokens=2,
    temperature=0.8,
    suppress_ids=(3,),
    **filters,
  )
  logits = full_logits(model, params, prompt, response.tokens)
  ids, steps = jnp.arange(5), jnp.arange(6)[:, None]
  closed = (ids >= 3) | ((ids == 1) & (steps < 2))
  logits = jnp.where(closed[None], -jnp.inf, logits) / 0.8
  scores = jax.nn.log_softmax(sampling.truncate(logits, **filters))
  exact = chosen(scores, response.tokens)
  exact = jnp.where(response.mask, exact, 0.0)
  np.testing.assert_allclose(response.sampling_logprobs, exact, atol=1e-5)
  assert (response.tokens < 3).all()
  assert response.mask[:, :3].all()


def test_policy_logprobs_are_the_models_own():
  model, params = setup(vocab_size=6, num_tokens=4)
  prompt = make_prompt()
  response = sampling.generate(
    model, params, prompt, KEY, max_new_tokens=7, temperature=0.5, top_k=2
  )
  exact = logprobs(model, params, prompt, response.tokens)
  exact = jnp.where(response.mask, exact, 0.0)
  np.testing.assert_allclose(response.policy_logprobs, exact, atol=1e-5)


@pytest.mark.parametrize('length', [1, 6])
def test_block_changes_nothing(length):
  whole = generate(max_new_tokens=length)
  for block in (1, 3):
    assert_same(generate(max_new_tokens=length, block=block), whole)
  assert whole.tokens.shape == (ROWS, length)
  assert whole.tokens.dtype == jnp.int32
  assert whole.mask.dtype == bool


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
def test_sample_belongs_to_the_row_id(impl):
  key = jax.random.key(3, impl=impl)
  whole = generate(key=key)
  for rows in ([4, 1, 5], [7, 7, 7, 0, 1, 0, 2, 2]):
    part = rows_of(make_prompt(), rows)
    part = generate(part, key, row_ids=jnp.array(rows))
    # Tokens are the same; kernels may round differently at another batch size.
    assert_same(part, rows_of(whole, rows), atol=1e-6)
  other = generate(key=key, row_ids=jnp.arange(ROWS) + 10)
  assert (other.tokens != whole.tokens).any()


def test_raw_keys_equal_typed_keys():
  assert_same(generate(key=jax.random.PRNGKey(0)), generate())


def test_more_samples_change_none_of_the_earlier_ones():
  three = generate(samples_per_prompt=3)
  assert three.tokens.shape == (3 * ROWS, 6)
  assert_same(jax.tree.map(lambda x: x[::3], three), generate())
  assert (three.tokens[::3] != three.tokens[1::3]).any()
  assert (three.tokens[1::3] != three.tokens[2::3]).any()
  prompt = jax.tree.map(lambda x: jnp.repeat(x, 3, 0), make_prompt())
  policy = logprobs(*setup(), prompt, three.tokens)
  np.testing.assert_allclose(
    three.policy_logprobs, jnp.where(three.mask, policy, 0.0), atol=1e-5
  )


@pytest.mark.parametrize('samples', [1, 2, 5])
def test_keys_of_samples_are_folded_one_by_one(samples):
  ids = jnp.array([3, 0, 7])
  found = draws.row_keys(KEY, ids, samples)
  expected = []
  for row in ids:
    key = jax.random.fold_in(KEY, row)
    expected.append(key)
    for j in range(1, samples):
      expected.append(jax.random.fold_in(key, jnp.uint32(2**32 - j)))
  expected = jax.random.key_data(jnp.stack(expected))
  assert_same(jax.random.key_data(found), expected)


def test_samples_stay_what_they_were():
  response = generate(samples_per_prompt=3)
  np.testing.assert_array_equal(response.tokens[:6], FIRST_SAMPLES)


def test_greedy_is_the_argmax_of_teacher_forcing():
  model, params = setup()
  response = generate(temperature=0)
  logits = full_logits(model, params, make_prompt(), response.tokens)
  expected = jnp.where(response.mask, jnp.argmax(logits, -1), model.pad_id)
  np.testing.assert_array_equal(response.tokens, expected)
  assert (response.sampling_logprobs == 0).all()


@pytest.mark.parametrize(
  'settings', [{'top_k': 1}, {'min_p': 1.0, 'top_p': 1e-6}]
)
def test_filters_at_their_limit_are_greedy(settings):
  response = generate(**settings)
  np.testing.assert_allclose(response.sampling_logprobs, 0, atol=1e-6)
  assert_same(response.tokens, generate(temperature=0).tokens)


def test_temperature_may_be_traced_down_to_zero():
  cold, warm = generate(temperature=0), generate(temperature=0.7)
  assert_same(generate(temperature=jnp.array(0.0)), cold)
  assert_same(generate(temperature=jnp.array(0.7)), warm)
  for nearly in (1e-6, 1e-12, 1e-30):
    found = generate(temperature=nearly)
    assert_same(found.tokens, cold.tokens)
    assert np.isfinite(found.sampling_logprobs).all()
  mixed = generate(temperature=jnp.where(jnp.arange(ROWS) % 2, 0.0, 0.7))
  even, odd = range(0, ROWS, 2), range(1, ROWS, 2)
  assert_same(rows_of(mixed, even), rows_of(warm, even))
  assert_same(rows_of(mixed, odd), rows_of(cold, odd))


def test_nothing_follows_the_first_end():
  response = generate(eos_id=(1, 3), pad_id=1)
  ends = np.isin(response.tokens, (1, 3))
  before = np.cumsum(ends, axis=1) - ends == 0
  np.testing.assert_array_equal(response.mask, before)
  assert not before.all()
  assert ends[before].any()
  assert (np.asarray(response.tokens)[~before] == 1).all()
  assert (np.asarray(response.sampling_logprobs)[~before] == 0).all()
  assert (np.asarray(response.policy_logprobs)[~before] == 0).all()


def test_eos_ids_override_the_models():
  assert generate(eos_id=()).mask.all()
  assert_same(generate(), generate(eos_id=np.int64(1)))
  assert not (generate(eos_id=3).tokens == 1).all()


class Counting(testing.TabularModel):
  """Counts how often it decodes."""

  calls = []

  def decode(self, params, state, tokens):
    jax.debug.callback(lambda: self.calls.append(1))
    return super().decode(params, state, tokens)


def count_calls(**settings):
  params = jax.tree.map(jnp.zeros_like, setup()[1])
  Counting.calls.clear()
  response = sampling.generate(
    Counting(), params, make_prompt(2), KEY, **settings
  )
  jax.effects_barrier()
  return len(Counting.calls), int(response.mask.sum(1).max())


def test_stops_within_a_block_of_the_last_end():
  calls, longest = count_calls(max_new_tokens=1000, block=4)
  assert longest < 100
  assert longest - 1 <= calls < longest - 1 + 4


@pytest.mark.parametrize('length', [1, 6])
def test_last_token_is_not_decoded(length):
  assert count_calls(max_new_tokens=length, eos_id=()) == (length - 1, length)


def test_jit_and_eager_agree():
  # Greedily: eager random numbers take long, and are tested with `sample`.
  jitted = generate(max_new_tokens=4, block=2, temperature=0)
  with jax.disable_jit():
    eager = generate(max_new_tokens=4, block=2, temperature=0)
  assert_same(jitted.tokens, eager.tokens)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6), jitted, eager
  )


def test_no_gradient_flows_through():
  model, params = setup()

  def loss(params):
    response = sampling.generate(
      model, params, make_prompt(), KEY, max_new_tokens=6
    )
    return response.policy_logprobs.sum() + (params['kernel'] ** 2).sum()

  grads = jax.grad(loss)(params)
  assert (grads['table'] == 0).all()
  np.testing.assert_allclose(grads['kernel'], 2 * params['kernel'])


def test_a_new_temperature_does_not_recompile():
  model, params = setup()
  args = model, params, make_prompt(), KEY
  sampling.generate(*args, max_new_tokens=6, temperature=0.9)
  with jax.no_tracing():
    sampling.generate(*args, max_new_tokens=6, temperature=0.8)


@functools.cache
def tiny(name):
  transformers = pytest.importorskip('transformers')
  if name == 't5':
    config = transformers.T5Config(
      vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
    )
  else:
    config = transformers.GPT2Config(
      vocab_size=40,
      n_positions=32,
      n_embd=16,
      n_layer=2,
      n_head=2,
      bos_token_id=1,
      eos_token_id=1,
    )
  return models.from_config(config, jax.random.key(0), num_tokens=37)


@pytest.mark.parametrize('name', ['t5', 'gpt2'])
def test_real_models_agree_with_teacher_forcing(name):
  model, params = tiny(name)
  tokens = jax.random.randint(jax.random.key(7), (3, 6), 2, 37)
  mask = jnp.arange(6)[None] < jnp.array([[6], [4], [1]])
  response = sampling.generate(
    model,
    params,
    types.Prompt(tokens, mask),
    KEY,
    max_new_tokens=9,
    temperature=jnp.array([0.0, 1.0, 0.0]),
    samples_per_prompt=2,
  )
  rows = jnp.array([0, 0, 1, 1, 2, 2])
  prompt = types.Prompt(tokens[rows], mask[rows])
  logits = full_logits(model, params, prompt, response.tokens)
  policy = chosen(jax.nn.log_softmax(logits), response.tokens)
  np.testing.assert_allclose(
    response.policy_logprobs, jnp.where(response.mask, policy, 0), atol=1e-4
  )
  best = jnp.argmax(logits[..., :37], -1)
  best = jnp.where(response.mask, best, model.pad_id)
  greedy = jnp.array([0, 1, 4, 5])
  np.testing.assert_array_equal(response.tokens[greedy], best[greedy])
  assert (response.tokens < 37).all()


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'temperature': -1.0}, 'temperature is -1.0'),
    ({'temperature': float('nan')}, 'temperature is nan'),
    ({'top_k': -1}, 'top_k is -1'),
    ({'top_p': 0.0}, 'top_p is 0.0'),
    ({'top_p': 1.1}, 'top_p is 1.1'),
    ({'min_p': 1.1}, 'min_p is 1.1'),
    ({'block': 0}, 'block is 0'),
    ({'samples_per_prompt': 0}, 'samples_per_prompt is 0'),
    ({'max_new_tokens': 0}, 'max_new_tokens is 0'),
    ({'min_new_tokens': 9}, 'min_new_tokens is 9'),
    ({'max_new_tokens': 6}, 'max_new_tokens to 5'),
    ({'suppress_ids': range(4)}, 'forbids all 4 tokens'),
    ({'suppress_ids': (0, 2, 3), 'min_new_tokens': 1}, 'forbids all 4'),
    ({'suppress_ids': (7,)}, r'suppress_ids holds \[7\]'),
    ({'eos_id': (1, 5)}, r'eos_id holds \[5\]'),
    ({'pad_id': -1}, r'pad_id holds \[-1\]'),
    ({'row_ids': np.arange(3)}, r'row_ids has shape \(3,\)'),
  ],
)
def test_bad_settings_are_named(settings, message):
  model, params = setup(max_positions=8)
  settings = {'max_new_tokens': 5, **settings}
  with pytest.raises(ValueError, match=message):
    sampling.generate(model, params, make_prompt(), KEY, **settings)
