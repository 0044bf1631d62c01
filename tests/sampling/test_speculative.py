"""Speculative samples have exactly the target's law, whatever drafts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, testing, types
from kdjax.sampling import speculative
from tests.sampling.cases import (
  KEY,
  ROWS,
  chosen,
  full_logits,
  logprobs,
  make_prompt,
)


@functools.cache
def setup(seed=1, vocab_size=4, **options):
  key = jax.random.key(seed)
  return testing.tabular(key, vocab_size=vocab_size, **options)


def speculate(prompt=None, target=None, draft=None, **settings):
  """Says 6 tokens; equal settings are compiled once for all tests."""
  return sampling.speculate(
    *(target or setup()),
    *(draft or setup(2)),
    make_prompt() if prompt is None else prompt,
    KEY,
    **{'max_new_tokens': 6, 'draft_tokens': 2, **settings},
  )


def assert_same(a, b, atol=0.0):
  same = functools.partial(np.testing.assert_allclose, atol=atol, rtol=0)
  jax.tree.map(same, a, b)


# Sixteenths over halves and quarters: eighths, so that eight equidistant
# numbers in place of the uniforms give every chance of acceptance exactly.
P = np.array([[1, 5, 10], [0, 8, 8], [9, 7, 0], [4, 8, 4], [16, 0, 0]]) / 16
Q = np.array([[2, 1, 1], [1, 2, 1], [0, 2, 2], [1, 1, 2]]) / 4


@pytest.mark.parametrize('shift', range(4))
def test_a_round_continues_with_exactly_the_targets_law(shift):
  # Distributions that depend on what was said before.
  p = [P[shift], P[np.arange(3) + shift - 3], P[np.arange(9).reshape(3, 3) % 5]]
  q = [Q[shift], Q[np.arange(3) + shift - 3]]
  x1, x2, *u = np.indices((3, 3, 8, 8)).reshape(4, -1)
  target = [p[0] + 0 * p[1][x1], p[1][x1], p[2][x1, x2]]
  draft = [q[0] + 0 * q[1][x1], q[1][x1]]
  accepted, weights = speculative.accept(
    *(jnp.asarray(np.stack(each, 1), jnp.float32) for each in (target, draft)),
    jnp.stack([x1, x2], 1),
    (jnp.stack(u, 1) + 0.5) / 8,
  )
  weights = np.asarray(weights) / np.asarray(weights).sum(1, keepdims=True)
  assert set(np.asarray(accepted)) == {0, 1, 2}
  law = np.zeros((3, 3, 3))
  for row, (first, second) in enumerate(zip(x1, x2)):
    chance = q[0][first] * q[1][first][second] / 64
    # Tokens that the round doesn't yield are the target's to say.
    if accepted[row] == 0:
      law += chance * weights[row][:, None, None] * p[1][..., None] * p[2]
    elif accepted[row] == 1:
      law[first] += chance * weights[row][:, None] * p[2][first]
    else:
      law[first, second] += chance * weights[row]
  exact = p[0][:, None, None] * p[1][..., None] * p[2]
  np.testing.assert_allclose(law, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('draft', [[0.5, 0.25, 0.25], [np.nan] * 3])
def test_where_nothing_is_left_the_target_speaks(draft):
  p = jnp.array([[[0.5, 0.25, 0.25]] * 2]) * (1 - 1e-6)
  # More than p / q, so refused; but max(p - q, 0) is 0 everywhere, or NaN.
  u = jnp.full((1, 1), 1 - 2.0**-24)
  proposals = jnp.array([[0]])
  accepted, weights = speculative.accept(p, jnp.array([[draft]]), proposals, u)
  assert accepted == 0
  assert_same(weights, p[:, 0])


SLOW = pytest.mark.slow
T = 4
# Seeds and vocabulary sizes; the target's are 1 and 3.
DRAFTS = dict(unlike=(2, 3), equal=(1, 3), smaller=(3, 2), larger=(4, 6))


@functools.cache
def exact_distribution(temperature, filters):
  """Returns the exact probability of every response to one prompt."""
  model, params = setup(vocab_size=3)
  every = testing.responses(3, T)
  prompt = jax.tree.map(lambda x: x.repeat(len(every), 0), make_prompt(1))
  logits = full_logits(model, params, prompt, every) / temperature
  kept = sampling.truncate(logits, **dict(filters))
  values = chosen(jax.nn.log_softmax(kept), every)
  after = jnp.cumsum(every == 1, axis=1) - (every == 1) > 0
  # After the end only the pad token follows.
  values = jnp.where(after, jnp.where(every == 0, 0.0, -jnp.inf), values)
  return np.exp(np.sum(np.asarray(values), axis=1))


@pytest.mark.parametrize(
  'draft, count, temperature, filters',
  [
    pytest.param('unlike', 1, 1.0, {}, marks=SLOW),
    ('unlike', 2, 1.0, {}),
    pytest.param('unlike', 4, 0.6, {}, marks=SLOW),
    pytest.param('unlike', 2, 1.5, {'top_k': 2}, marks=SLOW),
    ('unlike', 3, 1.0, {'top_p': 0.8, 'min_p': 0.1}),
    pytest.param('equal', 2, 1.0, {}, marks=SLOW),
    ('smaller', 2, 1.0, {}),
    pytest.param('larger', 2, 1.0, {}, marks=SLOW),
  ],
)
def test_frequencies_match_enumeration(draft, count, temperature, filters):
  rows = 20_000
  prompt = jax.tree.map(lambda x: x.repeat(rows, 0), make_prompt(1))
  response, (accepted, proposed) = speculate(
    prompt,
    setup(vocab_size=3),
    setup(*DRAFTS[draft]),
    max_new_tokens=T,
    draft_tokens=count,
    temperature=temperature,
    **filters,
  )
  exact = exact_distribution(temperature, tuple(filters.items()))
  np.testing.assert_allclose(exact.sum(), 1.0, rtol=1e-5)
  code = np.asarray(response.tokens) @ 3 ** np.arange(T)[::-1]
  counts = np.bincount(code, minlength=3**T)
  # Binomial standard errors. Five of them leave one chance in 20,000 of failing
  # over the 81 cells, for one fixed key.
  error = 5 * np.sqrt(exact * (1 - exact) / rows) + 1e-6
  assert (np.abs(counts / rows - exact) < error).all()
  assert (exact[code] > 0).all()
  np.testing.assert_allclose(
    np.exp(response.sampling_logprobs.sum(1)), exact[code], rtol=1e-4
  )
  if draft == 'equal':
    assert accepted == proposed > rows / 2
  else:
    assert rows / 20 < accepted < 0.9 * proposed


def test_rules_and_logprobs_are_the_targets():
  model, params = setup(vocab_size=7, num_tokens=6)
  prompt = make_prompt(50)
  filters = {'top_k': 5, 'top_p': 0.9, 'min_p': 0.1}
  response, (accepted, proposed) = speculate(
    prompt,
    (model, params),
    setup(2, vocab_size=7),
    draft_tokens=3,
    min_new_tokens=3,
    temperature=0.8,
    eos_id=(1, 2),
    pad_id=4,
    suppress_ids=(3,),
    **filters,
  )
  assert 0 < accepted < proposed
  ends = np.isin(response.tokens, (1, 2))
  before = np.cumsum(ends, axis=1) - ends == 0
  assert_same(response.mask, before)
  assert set(before.sum(1)) == {4, 5, 6}
  assert (np.asarray(response.tokens)[~before] == 4).all()
  logits = full_logits(model, params, prompt, response.tokens)
  ids, steps = np.arange(7), np.arange(6)[:, None]
  closed = (ids > 5) | (ids == 3) | (np.isin(ids, (1, 2)) & (steps < 3))
  kept = jnp.where(closed, -jnp.inf, logits) / 0.8
  kept = jax.nn.log_softmax(sampling.truncate(kept, **filters))
  for found, exact in (
    (response.sampling_logprobs, chosen(kept, response.tokens)),
    (
      response.policy_logprobs,
      logprobs(model, params, prompt, response.tokens),
    ),
  ):
    assert_same(found, jnp.where(before, exact, 0.0), atol=1e-5)


def test_one_token_needs_no_draft():
  response, (accepted, proposed) = speculate(max_new_tokens=1)
  assert response.mask.tolist() == [[True]] * ROWS
  assert accepted == proposed == 0


def test_types_are_the_same_in_wide_precision():
  narrow = jax.tree.map(jnp.result_type, speculate())
  with jax.enable_x64(True):
    assert jax.tree.map(jnp.result_type, speculate()) == narrow


def test_sample_belongs_to_the_row_id():
  whole, _ = speculate()
  for rows in ([4, 1, 5], [7, 7, 7, 0, 1, 0, 2, 2]):
    rows = jnp.array(rows)
    part = jax.tree.map(lambda x, rows=rows: x[rows], (make_prompt(), whole))
    # Tokens are the same; kernels may round differently at another batch size.
    assert_same(speculate(part[0], row_ids=rows)[0], part[1], atol=1e-6)
  other, _ = speculate(row_ids=jnp.arange(ROWS) + 10)
  assert (other.tokens != whole.tokens).any()


def test_temperature_may_be_traced_down_to_zero():
  cold, warm = speculate(temperature=0)[0], speculate(temperature=0.7)[0]
  assert (cold.sampling_logprobs == 0).all()
  is_cold = jnp.arange(ROWS)[:, None] % 2 == 1
  mixed, _ = speculate(temperature=jnp.where(is_cold[:, 0], 0.0, 0.7))
  expected = jax.tree.map(functools.partial(jnp.where, is_cold), cold, warm)
  assert (mixed.tokens != cold.tokens).any()
  assert_same(mixed, expected, atol=1e-6)


class Counting(testing.TabularModel):
  """Notes what it reads."""

  reads = []

  def decode(self, params, state, tokens):
    jax.debug.callback(lambda x: self.reads.append(np.asarray(x)), tokens)
    return super().decode(params, state, tokens)


def test_each_round_is_one_pass_of_the_target():
  Counting.reads.clear()
  target = Counting(), setup()[1]
  speculate(None, target, setup(), max_new_tokens=13, draft_tokens=3, eos_id=())
  jax.effects_barrier()
  # One token from the prompt, then three rounds of 3 + 1.
  assert [x.shape for x in Counting.reads] == [(ROWS, 4)] * 3


def test_the_draft_reads_only_what_it_knows():
  Counting.reads.clear()
  draft = Counting(vocab_size=3, num_tokens=2)
  response, _ = speculate(draft=(draft, draft.init(KEY)), eos_id=())
  jax.effects_barrier()
  assert (response.tokens > 1).any()
  assert Counting.reads
  assert max(x.max() for x in Counting.reads) == 1


def test_a_broken_target_ends_all_the_same():
  model, params = setup()
  params = jax.tree.map(lambda x: x * jnp.nan, params)
  response, (accepted, _) = speculate(target=(model, params))
  assert response.mask.all()
  assert ((response.tokens >= 0) & (response.tokens < 4)).all()
  assert jnp.isnan(response.policy_logprobs).all()
  assert accepted == 0


def test_no_gradient_flows_through():
  model, params = setup()

  def total(params):
    return speculate(target=(model, params))[0].policy_logprobs.sum()

  jax.tree.map(lambda x: assert_same(x, 0 * x), jax.grad(total)(params))


def test_a_new_temperature_does_not_recompile():
  speculate(temperature=0.7)
  with jax.no_tracing():
    speculate(temperature=0.8)


CONFIGS = {
  't5': dict(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2),
  'gpt2': dict(n_positions=22, n_embd=16, n_layer=1, n_head=2),
  'llama': dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1),
}  # fmt: skip
LENGTH, COUNT = 12, 3


@functools.cache
def tiny(name):
  """Returns a tiny model that doesn't always say the same."""
  config = dict(model_type=name, bos_token_id=1, eos_token_id=1)
  config |= dict(vocab_size=48 if name == 'llama' else 40, **CONFIGS[name])
  model, params = models.from_config(config, KEY, num_tokens=37)
  return model, jax.tree.map(lambda x: 2 * np.asarray(x), params)


def shaken(params):
  """Returns params plus a tenth of their own deviation in noise."""
  rng = np.random.default_rng(9)

  def shake(x):
    return x + 0.1 * x.std() * rng.normal(size=x.shape).astype(np.float32)

  return jax.tree.map(shake, params)


def ragged_prompt():
  """Rows unpadded, padded right and left, and all padding."""
  tokens = np.random.default_rng(7).integers(2, 37, (4, 7))
  slots = np.arange(7)
  mask = np.stack([slots >= 0, slots < 4, slots > 1, slots < 0])
  return types.Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(mask))


def count_greedy(response, guesses):
  """Returns how many proposals are accepted and made, given the draft's [B, T].

  Those before the first wrong one follow the response itself, so what a draft
  of perfect memory would propose is what it guesses teacher-forced.
  """
  accepted = proposed = 0
  lengths = np.asarray(response.mask).sum(1)
  right = guesses == np.asarray(response.tokens)
  for row, length in enumerate(lengths):
    place = 1
    while place < length:
      ahead = right[row, place : min(place + COUNT, length)]
      good = int(np.cumprod(ahead).sum())
      # The round's tokens end with the response or only at T.
      end = length if place + good + 1 >= length else LENGTH
      accepted += good
      proposed += min(COUNT, end - place)
      place += good + 1
  return accepted, proposed


@pytest.mark.parametrize('name', ['t5', pytest.param('gpt2', marks=SLOW)])
def test_greedy_equals_generate(name):
  model, params = tiny(name)
  # A draft that is right now and then, and reads something else.
  draft_params = shaken(params)
  prompt = ragged_prompt()
  draft_prompt = types.Prompt(prompt.tokens, jnp.roll(prompt.mask, 1, axis=1))
  settings = {'max_new_tokens': LENGTH, 'temperature': 0, 'min_new_tokens': 2}
  expected = sampling.generate(model, params, prompt, KEY, **settings)
  response, counts = speculate(
    prompt,
    (model, params),
    (model, draft_params),
    draft_prompt=draft_prompt,
    draft_tokens=COUNT,
    **settings,
  )
  assert_same(response, expected, atol=1e-4)
  logits = full_logits(model, draft_params, draft_prompt, response.tokens)
  logits = np.array(logits)[..., :37]
  logits[:, :2, 1] = -np.inf
  assert counts == count_greedy(response, logits.argmax(-1))
  assert 0 < counts[0] < counts[1]


@SLOW
def test_families_and_padded_vocabularies_mix():
  model, params = tiny('t5')
  prompt = ragged_prompt()
  response, (accepted, proposed) = speculate(
    prompt,
    (model, params),
    tiny('llama'),
    max_new_tokens=LENGTH,
    draft_prompt=jax.tree.map(lambda x: x[:, 1:], prompt),
    temperature=1.5,
    eos_id=(),
  )
  assert 0 < accepted < proposed
  policy = logprobs(model, params, prompt, response.tokens)
  assert_same(response.policy_logprobs, policy, atol=1e-4)


BAD = [
  ({'temperature': -1.0}, 'temperature is -1.0'),
  ({'top_p': 0.0}, 'top_p is 0.0'),
  ({'draft_tokens': 0}, 'draft_tokens is 0'),
  ({'suppress_ids': range(4)}, 'forbids all 4 tokens'),
  ({'row_ids': np.arange(3)}, r'row_ids has shape \(3,\)'),
  ({'draft_prompt': make_prompt(3)}, '8 rows and draft_prompt 3'),
  ({'max_new_tokens': 13}, '16 positions of the target. Shorten one by 2'),
  ({'draft': setup(max_positions=9)}, '9 positions of the draft'),
]


@pytest.mark.parametrize('settings, message', BAD)
def test_bad_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    speculate(target=setup(max_positions=16), **settings)
