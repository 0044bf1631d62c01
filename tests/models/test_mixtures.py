"""Mixtures of two models: enumerated, step by step, and with real models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, testing, types

V, T, WEIGHT = 4, 3, 0.3

logprobs = jax.jit(models.logprobs, static_argnums=0)

A = testing.tabular(jax.random.key(0))
B = testing.tabular(jax.random.key(1), width=5, eos_ids=(2,), pad_id=3)
MODEL = models.mixture(A[0], B[0], WEIGHT)
PARAMS = A[1], B[1]


def prompt(*rows, width):
  mask = np.array([[i < len(row) for i in range(width)] for row in rows])
  filled = [[*row, *[9] * (width - len(row))] for row in rows]
  return types.Prompt(jnp.array(filled, jnp.int32), jnp.asarray(mask))


# The two models read other prompts, of other widths.
PROMPTS = prompt([2], [3, 1], width=2), prompt([1, 2, 3], [2, 2], width=3)
EVERY = testing.responses(V, T)


def rows(tree, row, count):
  """Returns one row, repeated."""
  return jax.tree.map(lambda x: jnp.repeat(x[row : row + 1], count, 0), tree)


def close(a, b, atol=1e-5):
  np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def by_hand(row, responses, weight=WEIGHT):
  """log(w p_a + (1 - w) p_b) of every token, from the models themselves."""
  p, q = (
    jnp.exp(logprobs(*one, rows(x, row, len(responses)), responses))
    for one, x in zip((A, B), PROMPTS)
  )
  return np.log(weight * p + (1 - weight) * q)


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, prompts, responses):
  hidden = model.hidden_states(params, prompts, responses)
  return model.head(params, hidden)


@pytest.mark.parametrize('row', [0, 1])
def test_every_response_has_the_mixtures_probability(row):
  found = logprobs(MODEL, PARAMS, rows(PROMPTS, row, len(EVERY)), EVERY)
  close(found, by_hand(row, EVERY))
  close(np.exp(found.sum(1)).sum(), 1.0)


def test_steps_are_the_teacher_forced_ones():
  responses = EVERY[7:9]
  expected = forced(MODEL, PARAMS, PROMPTS, responses)
  # They are log-probabilities already.
  close(jax.nn.logsumexp(expected, -1), 0)
  logits, state = MODEL.prefill(PARAMS, PROMPTS, T)
  close(logits, expected[:, 0])
  both, state = MODEL.decode(PARAMS, state, responses[:, :2])
  close(both, expected[:, 1:])
  # Rejected tokens are undone, and rows change places, in both models.
  state = state.rewind(jnp.array([1, 1])).take(jnp.array([1, 0]))
  again, _ = MODEL.decode(PARAMS, state, responses[::-1, 1:2])
  close(again, expected[::-1, 2:])


def test_generate_tells_the_mixtures_logprobs():
  generate = functools.partial(
    sampling.generate, MODEL, PARAMS, max_new_tokens=T
  )
  key = jax.random.key(0)
  out = generate(PROMPTS, key, samples_per_prompt=8)
  assert out.tokens.shape == (16, T)
  for row in (0, 1):
    mine = jax.tree.map(lambda x: x[8 * row : 8 * row + 8], out)  # noqa: B023
    expected = np.where(mine.mask, by_hand(row, mine.tokens), 0)
    close(mine.sampling_logprobs, expected)
    close(mine.policy_logprobs, expected)
  # Responses end as a's do.
  ended = np.isin(out.tokens, A[0].eos_ids) & np.asarray(out.mask)
  assert ended.any() and not (ended[:, :-1] & out.mask[:, 1:]).any()
  assert (np.asarray(out.tokens)[~np.asarray(out.mask)] == A[0].pad_id).all()
  # A row's sample is its own, whatever its batch.
  last = jax.tree.map(lambda x: x[1:], PROMPTS)
  alone = generate(last, key, row_ids=jnp.array([1]), samples_per_prompt=8)
  np.testing.assert_array_equal(alone.tokens, out.tokens[8:])


def test_samples_are_as_frequent_as_the_mixture_says():
  count = 20_000
  out = sampling.generate(
    MODEL,
    PARAMS,
    rows(PROMPTS, 1, count),
    jax.random.key(3),
    max_new_tokens=2,
    eos_id=(),
  )
  code = np.asarray(out.tokens) @ [V, 1]
  found = np.bincount(code, minlength=V**2) / count
  pairs = testing.responses(V, 2)
  expected = np.exp(by_hand(1, pairs).sum(1))
  # Five standard deviations of a frequency, at most 5 * sqrt(1/4 / count).
  close(found, expected, atol=5 * 0.5 * count**-0.5)
  only = [np.exp(by_hand(1, pairs, w).sum(1)) for w in (0, 1)]
  assert all(np.abs(found - p).max() > 0.1 for p in only)


@pytest.mark.parametrize('weight, which', [(1, 0), (0, 1)])
def test_at_the_ends_it_is_one_of_the_models(weight, which):
  model = models.mixture(A[0], B[0], weight)
  responses = EVERY[:2]
  alone, params = (A, B)[which]
  expected = forced(alone, params, PROMPTS[which], responses)
  found = forced(model, PARAMS, PROMPTS, responses)
  close(found, jax.nn.log_softmax(expected), atol=1e-6)
  out, single = (
    sampling.generate(
      m, p, x, jax.random.key(0), max_new_tokens=T, eos_id=1, pad_id=0
    )
    for m, p, x in (
      (model, PARAMS, PROMPTS),
      (alone, params, PROMPTS[which]),
    )
  )
  np.testing.assert_array_equal(out.tokens, single.tokens)


def test_weights_outside_the_unit_interval_are_refused():
  for weight in (-0.1, 1.1, float('nan')):
    with pytest.raises(ValueError, match=f'weight is {weight}.*0.*1'):
      models.mixture(A[0], B[0], weight)


def test_a_mixture_has_no_projection_and_says_so():
  with pytest.raises(NotImplementedError, match='head'):
    MODEL.output_head(PARAMS)


def test_it_is_a_hashable_setting_with_as_properties():
  twin = models.mixture(A[0], B[0], WEIGHT)
  assert twin == MODEL and hash(twin) == hash(MODEL)
  assert models.mixture(B[0], A[0], WEIGHT) != MODEL
  assert (MODEL.eos_ids, MODEL.pad_id) == ((1,), 0)
  short, long = (testing.TabularModel(max_positions=n) for n in (5, 9))
  for a, b, limit in (
    (A[0], B[0], None),
    (short, B[0], 5),
    (A[0], long, 9),
    (long, short, 5),
  ):
    assert models.mixture(a, b, 0.5).max_positions == limit


def test_tokens_without_mass_stay_so_and_gradients_stay_finite():
  holes = jnp.array([0.0, -jnp.inf, 0.0, -jnp.inf])
  others = jnp.array([1.0, 0.0, -jnp.inf, -jnp.inf])

  def log_mix(logits):
    model = models.mixture(A[0], B[0], 0.5)
    return model._mix(logits[0] + holes, logits[1] + others)

  point = jnp.zeros((2, V))
  p = np.array([0.5, 0, 0.5, 0]) + np.exp([1, 0, -np.inf, -np.inf]) / (1 + np.e)
  with np.errstate(divide='ignore'):
    close(log_mix(point), np.log(p / 2))
  slope = jax.jacrev(log_mix)(point)
  assert jnp.isfinite(slope).all() and jnp.abs(slope).max() > 0.1


def test_a_padded_and_a_longer_vocabulary_are_cut():
  # 6 rows of which 5 are tokens, and 4 tokens: what neither knows is no choice.
  wide, wide_params = testing.tabular(jax.random.key(2), vocab_size=6)
  wide = testing.TabularModel(vocab_size=6, num_tokens=5)
  model = models.mixture(wide, A[0], 0.5)
  assert model.vocab_size == model.num_tokens == V
  params, prompts = (wide_params, A[1]), PROMPTS[::-1]
  found = forced(model, params, prompts, EVERY[:2])
  first = forced(wide, wide_params, prompts[0], EVERY[:2])[..., :V]
  second = forced(*A, prompts[1], EVERY[:2])
  p, q = jax.nn.softmax(first), jax.nn.softmax(second)
  close(np.exp(found), (p + q) / 2)


@pytest.fixture(scope='module')
def pair():
  """A T5 and a GPT-2 model: other families, widths, and vocabularies."""
  t5 = {
    'model_type': 't5',
    'vocab_size': 12,
    'd_model': 6,
    'd_kv': 3,
    'd_ff': 8,
    'num_heads': 2,
    'num_layers': 1,
  }
  gpt2 = {
    'model_type': 'gpt2',
    'vocab_size': 11,
    'n_embd': 8,
    'n_head': 2,
    'n_layer': 1,
    'n_positions': 9,
  }
  options = dict(num_tokens=10, dropout=0.5)
  a, b = (
    models.from_config(config, jax.random.key(i), **options)
    for i, config in enumerate((t5, gpt2))
  )
  scaled = [jax.tree.map(lambda x: 3 * x, params) for _, params in (a, b)]
  return (a[0], scaled[0]), (b[0], scaled[1])


def test_models_of_different_families_mix(pair):
  (a, params_a), (b, params_b) = pair
  model, params = models.mixture(a, b, 0.4), (params_a, params_b)
  assert model.max_positions == 9 and model.vocab_size == 10
  out = sampling.generate(
    model, params, PROMPTS, jax.random.key(0), max_new_tokens=4
  )
  found = logprobs(model, params, PROMPTS, out.tokens)
  close(jnp.where(out.mask, found, 0), out.sampling_logprobs)

  def alone(model, params, prompt):
    scores = forced(model, params, prompt, out.tokens)[..., :10]
    scores = jax.nn.softmax(scores)
    return jnp.take_along_axis(scores, out.tokens[..., None], -1)[..., 0]

  p, q = (alone(*one, x) for one, x in zip(pair, PROMPTS))
  close(found, np.log(0.4 * p + 0.6 * q))
  assert jnp.abs(p - q).max() > 0.05


def test_dropout_and_captures_reach_both_models(pair):
  (a, params_a), (b, params_b) = pair
  model, params = models.mixture(a, b, 0.4), (params_a, params_b)

  @functools.partial(jax.jit, static_argnames='capture')
  def call(dropout_key=None, capture=()):
    return model.hidden_states(
      params, PROMPTS, EVERY[:2], dropout_key=dropout_key, capture=capture
    )

  plain, noisy = call(), call(jax.random.key(0))
  assert all(jnp.abs(x - y).max() > 1e-3 for x, y in zip(plain, noisy))
  hidden, captured = call(capture=('hidden',))
  jax.tree.map(close, hidden, plain)
  assert set(captured[0]) == {'encoder', 'decoder'}
  assert captured[1]['decoder'][0]['hidden'].shape == (2, T, 8)


def test_a_mixture_can_be_mixed_again():
  inner = models.mixture(MODEL, A[0], 0.5)
  params, prompts = (PARAMS, A[1]), (PROMPTS, PROMPTS[0])
  found = logprobs(inner, params, prompts, EVERY[:2])
  # Half of 0.3 and another half: 0.65 of a, 0.35 of b.
  flat = models.mixture(A[0], B[0], 0.65)
  close(found, logprobs(flat, PARAMS, PROMPTS, EVERY[:2]))
