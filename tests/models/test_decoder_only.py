import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from kdjax import models, sampling, types
from kdjax.models import decoder_only

V, S, T = 37, 9, 7

NAMES = (
  'gpt2', 'opt', 'opt_350m', 'llama', 'llama3', 'mistral',
  'qwen2', 'qwen3', 'gemma2',
)  # fmt: skip
every_family = pytest.mark.parametrize('name', NAMES)


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, prompt, response, key=None):
  """Returns the teacher-forced logits [B, T, V]."""
  hidden = model.hidden_states(params, prompt, response, dropout_key=key)
  return model.head(params, hidden)


@functools.partial(jax.jit, static_argnums=(0, 3))
def prefill(model, params, prompt, room):
  return model.prefill(params, prompt, room)


@functools.partial(jax.jit, static_argnums=0)
def decode(model, params, state, tokens):
  return model.decode(params, state, tokens)


def tokens(seed, *shape):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(3, V, shape), jnp.int32)


def make_prompt():
  """Rows without padding, padded right, left, on both sides."""
  mask = np.ones((4, S), bool)
  mask[1, 6:] = mask[2, :4] = mask[3, :2] = mask[3, 7:] = False
  return types.Prompt(tokens(0, 4, S), jnp.asarray(mask))


def their_logits(theirs, prompt, response):
  """Returns torch's logits for the response, each row alone and unpadded."""
  rows = []
  for row, mask, said in zip(
    *map(np.asarray, (prompt.tokens, prompt.mask, response))
  ):
    ids = torch.tensor(np.concatenate([row[mask], said[:-1]])[None])
    with torch.no_grad():
      rows.append(theirs(input_ids=ids).logits[0, -len(said) :].numpy())
  return np.stack(rows)


def close(a, b, atol=1e-5):
  np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@every_family
def test_logits_match_transformers(load_decoder, name):
  theirs, model, params = load_decoder(name)
  prompt, response = make_prompt(), tokens(1, 4, T)
  ours = forced(model, params, prompt, response)
  expected = their_logits(theirs, prompt, response)
  assert ours.dtype == jnp.float32
  close(ours, expected, 3e-5)
  logits, state = prefill(model, params, prompt, T)
  steps = [logits]
  for t in range(T - 1):
    logits, state = decode(model, params, state, response[:, t : t + 1])
    steps.append(logits[:, 0])
  close(np.stack(steps, 1), expected, 3e-5)


def their_generation(theirs, model, prompt):
  """Returns torch's greedy tokens [B, T]; it wants padding on the left."""
  prompt = decoder_only.left_pad(prompt, 0)
  ids = theirs.generate(
    torch.tensor(np.asarray(prompt.tokens)).long(),
    attention_mask=torch.tensor(np.asarray(prompt.mask)).long(),
    max_new_tokens=T,
    do_sample=False,
    pad_token_id=model.pad_id,
  )
  tokens = np.full((len(ids), T), model.pad_id)
  tokens[:, : ids.shape[1] - S] = ids[:, S:].numpy()
  return tokens


@every_family
def test_greedy_decoding_matches_transformers(load_decoder, name):
  theirs, model, params = load_decoder(name)
  prompt = make_prompt()
  logits, state = prefill(model, params, prompt, T)
  done, said = np.zeros(4, bool), []
  for _ in range(T):
    chosen = np.where(done, model.pad_id, logits.argmax(-1))
    done |= np.isin(chosen, model.eos_ids)
    said.append(chosen)
    logits, state = decode(model, params, state, jnp.asarray(chosen)[:, None])
    logits = logits[:, 0]
  expected = their_generation(theirs, model, prompt)
  np.testing.assert_array_equal(np.stack(said, 1), expected)


def test_generate_matches_transformers(load_decoder):
  theirs, model, params = load_decoder('gemma2')
  prompt = make_prompt()
  ours = sampling.generate(
    model, params, prompt, jax.random.key(0), max_new_tokens=T, temperature=0
  )
  expected = their_generation(theirs, model, prompt)
  np.testing.assert_array_equal(ours.tokens, expected)


@every_family
def test_saved_models_load_in_transformers(load_decoder, tmp_path, name):
  theirs, model, params = load_decoder(name)
  models.save_pretrained(tmp_path, model, params)
  loaded, report = type(theirs).from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not report['missing_keys'] and not report['unexpected_keys']
  ids = torch.tensor(np.asarray(tokens(1, 2, T))).long()
  with torch.no_grad():
    close(loaded(ids).logits, theirs(ids).logits)
  again, same = models.from_pretrained(tmp_path)
  assert again.config == model.config
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_scanned_equals_unrolled(load_decoder, tmp_path):
  _, model, params = load_decoder('gemma2')
  _, scanned, stacked = load_decoder('gemma2', scan=True)
  prompt, response = make_prompt(), tokens(1, 4, T)
  expected = forced(model, params, prompt, response)
  close(forced(scanned, stacked, prompt, response), expected)
  _, state = prefill(scanned, stacked, prompt, T)
  _, state = decode(scanned, stacked, state, response[:, :3])
  state = state.rewind(jnp.array([1, 2, 3, 0]))
  state = state.take(jnp.array([2, 0]))
  logits, _ = decode(
    scanned, stacked, state, jnp.stack([response[2, 3:6], response[0, 1:4]])
  )
  close(logits[0], expected[2, 4:7])
  close(logits[1], expected[0, 2:5])
  models.save_pretrained(tmp_path, scanned, stacked)
  _, same = models.from_pretrained(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize('name', ['gpt2', 'gemma2'])
def test_rewound_and_regathered_states_go_on_as_if_nothing_had_been(
  load_decoder, name
):
  _, model, params = load_decoder(name)
  prompt, response = make_prompt(), tokens(1, 4, T)
  expected = forced(model, params, prompt, response)
  _, state = prefill(model, params, prompt, T)
  _, state = decode(model, params, state, tokens(7, 4, 4))
  state = state.rewind(jnp.zeros(4, int))  # all rejected
  _, state = decode(model, params, state, response[:, :4])
  keep = np.array([4, 1, 3, 2])
  state = state.rewind(jnp.asarray(keep))
  following = np.stack([response[b, n : n + 2] for b, n in enumerate(keep)])
  logits, state = decode(model, params, state, jnp.asarray(following))
  for b, n in enumerate(keep):
    close(logits[b], expected[b, n + 1 : n + 3])


@every_family
def test_what_stands_in_the_padding_never_matters(load_decoder, name):
  _, model, params = load_decoder(name)
  prompt, response = make_prompt(), tokens(1, 4, T)
  noise = jnp.array([-100, 5, 0, 10**6, 7, V, 8, -1, 3])
  other = types.Prompt(
    jnp.where(prompt.mask, prompt.tokens, noise), prompt.mask
  )
  np.testing.assert_array_equal(
    forced(model, params, other, response),
    forced(model, params, prompt, response),
  )


@pytest.mark.parametrize('name', ['opt', 'mistral', 'gemma2'])
def test_how_wide_the_padding_is_never_matters(load_decoder, name):
  _, model, params = load_decoder(name)
  prompt, response = make_prompt(), tokens(1, 4, T)
  expected = forced(model, params, prompt, response)
  for sides in ((0, 3), (2, 1)):
    wide = types.Prompt(
      jnp.pad(prompt.tokens, ((0, 0), sides)),
      jnp.pad(prompt.mask, ((0, 0), sides)),
    )
    close(forced(model, params, wide, response), expected)


def test_an_empty_prompt_is_the_start_token(load_decoder):
  _, model, params = load_decoder('gpt2')
  start = model.config.start_id
  assert start == 2
  response = tokens(1, 1, T)
  one = types.Prompt(jnp.array([[start]]), jnp.ones((1, 1), bool))
  expected = forced(model, params, one, response)
  for width in (4, 0):
    empty = types.Prompt(tokens(3, 1, width), jnp.zeros((1, width), bool))
    close(forced(model, params, empty, response), expected)
  logits, state = prefill(model, params, empty, T)
  close(logits, expected[:, 0])
  logits, _ = decode(model, params, state, response[:, :2])
  close(logits, expected[:, 1:3])


def influence(model, params, prompt, response):
  """Returns [T, V]: whether hidden state t depends on a token's embedding."""

  def hidden(table):
    changed = {**params, 'embed': {'embedding': table}}
    return model.hidden_states(changed, prompt, response)[0].sum(-1)

  table = jnp.asarray(params['embed']['embedding'])
  return np.abs(jax.jit(jax.jacrev(hidden))(table)).sum(-1) > 0


@pytest.mark.parametrize('name', ['gpt2', 'mistral'])
def test_causality_and_windows_by_gradients(load_decoder, name):
  _, model, params = load_decoder(name)
  # No token twice, so that an embedding's gradient tells of one position.
  text = jnp.arange(3, 3 + 5 + T)[None]
  padded = types.Prompt(
    jnp.pad(text[:, :5], ((0, 0), (1, 1))),
    jnp.pad(jnp.ones((1, 5), bool), ((0, 0), (1, 1))),
  )
  seen = influence(model, params, padded, text[:, 5:])
  where = np.arange(5 + T)
  # Two layers that look 3 tokens back each.
  reach = 6 if name == 'mistral' else 99
  for t in range(T):
    expected = (where < 5 + t) & (where >= 5 + t - 1 - reach)
    np.testing.assert_array_equal(seen[t, 3 : 3 + 5 + T], expected)
    assert not seen[t, :3].any()  # what stands in the padding


def test_remat_changes_no_gradient(load_decoder):
  _, model, params = load_decoder('gemma2')
  prompt, response = make_prompt(), tokens(1, 4, T)

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(model, params):
    return jax.grad(
      lambda p: models.logprobs(model, p, prompt, response).mean()
    )(params)

  again = with_config(model, remat=True)
  expected = gradient(model, params)
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(expected))
  jax.tree.map(close, gradient(again, params), expected)


def with_config(model, **changes):
  config = dataclasses.replace(model.config, **changes)
  return dataclasses.replace(model, config=config)


RATES = 'dropout', 'attention_dropout', 'embedding_dropout'


@pytest.mark.parametrize('rate', RATES)
def test_every_rate_drops_something(load_decoder, rate):
  _, model, params = load_decoder('gpt2', dropout=0.0)
  prompt, response = make_prompt(), tokens(1, 4, T)
  noisy = with_config(model, **{rate: 0.5})
  run = functools.partial(forced, noisy, params, prompt, response)
  first, second = jax.random.split(jax.random.key(0))
  np.testing.assert_array_equal(run(first), run(first))
  assert np.abs(run(first) - run(second)).max() > 1e-3


def test_dropout_needs_a_key(load_decoder):
  _, model, params = load_decoder('gpt2')
  assert all(getattr(model.config, rate) == 0.1 for rate in RATES)
  _, exact, _ = load_decoder('gpt2', dropout=0.0)
  prompt, response = make_prompt(), tokens(1, 4, T)
  np.testing.assert_array_equal(
    forced(model, params, prompt, response),
    forced(exact, params, prompt, response),
  )


@pytest.mark.parametrize('name', ['llama3', 'gemma2'])
def test_bfloat16_stays_close(load_decoder, name):
  _, model, params = load_decoder(name)
  _, half, _ = load_decoder(name, dtype=jnp.bfloat16)
  prompt, response = make_prompt(), tokens(1, 4, T)
  logits = forced(half, params, prompt, response)
  assert logits.dtype == jnp.float32
  # bfloat16 keeps 8 bits: each rounding errs by up to 0.4 %, and some twenty
  # roundings a path add up to a few per cent of the logits' spread.
  expected = forced(model, params, prompt, response)
  error = np.sqrt(np.mean((logits - expected) ** 2))
  assert 0 < error < 0.05 * np.std(expected)


@pytest.mark.parametrize('scan', [False, True])
def test_captured_layers_are_those_of_transformers(load_decoder, scan):
  theirs, model, params = load_decoder('llama', scan=scan)
  prompt, response = make_prompt(), tokens(1, 4, T)
  run = jax.jit(model.hidden_states, static_argnames='capture')
  hidden, captured = run(
    params, prompt, response, capture=('hidden', 'attention')
  )
  expected = their_logits(theirs, prompt, response)
  close(model.head(params, hidden), expected, 3e-5)
  layers = captured['decoder']
  if scan:
    layers = [jax.tree.map(lambda x, i=i: x[i], layers) for i in range(2)]
  assert len(layers) == 2
  ids = np.concatenate([prompt.tokens[1, :6], response[1, :-1]])[None]
  with torch.no_grad():
    out = theirs(
      torch.tensor(ids).long(),
      output_hidden_states=True,
      output_attentions=True,
    )
  # Row 1 has 3 padded tokens. transformers norms the last hidden state.
  close(layers[0]['hidden'][1], out.hidden_states[1][0, -T:])
  for ours, attention in zip(layers, out.attentions):
    assert ours['attention'].shape == (4, 4, T, S + T - 1)
    close(ours['attention'][1, :, :, 3:], attention[0, :, -T:])
    assert not ours['attention'][1, :, :, :3].any()


def test_left_pad_keeps_tokens_in_order():
  prompt = types.Prompt(
    jnp.array(
      [[1, 2, 9, 9], [9, 1, 2, 9], [9, 9, 1, 2], [9, 9, 9, 9], [1, 9, 2, 9]]
    ),
    jnp.array(
      [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]],
      bool,
    ),
  )
  padded = decoder_only.left_pad(prompt, 7)
  np.testing.assert_array_equal(
    padded.tokens,
    [[0, 0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 2], [0, 0, 0, 7], [0, 1, 0, 2]],
  )
  np.testing.assert_array_equal(
    padded.mask,
    np.array(
      [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]],
      bool,
    ),
  )


def test_learned_positions_have_an_end(load_decoder):
  _, model, params = load_decoder('gpt2')
  assert model.max_positions == 24
  assert load_decoder('opt')[1].max_positions == 24
  assert load_decoder('llama')[1].max_positions is None
  prompt = make_prompt()
  with pytest.raises(ValueError, match='25 tokens .* 24 learned positions'):
    model.hidden_states(params, prompt, tokens(1, 4, 25))
  with pytest.raises(ValueError, match='25 tokens .* 24 learned positions'):
    model.prefill(params, prompt, 25)
  # Padding past the table's end is harmless.
  response = tokens(1, 4, 24)
  expected = forced(model, params, prompt, response[:, :T])
  longer = forced(model, params, prompt, response)
  close(longer[:, :T], expected)


def test_fresh_models_are_nearly_uniform_and_load_in_transformers(
  decoder_configs, tmp_path
):
  model, params = models.from_config(
    decoder_configs['gpt2'](), jax.random.key(0), scan=True
  )
  prompt, response = make_prompt(), tokens(1, 4, T)
  logits = forced(model, params, prompt, response)
  # Embeddings of standard deviation 0.02 against states of norm sqrt(15).
  assert 0 < np.abs(logits).max() < 0.5
  kernel = params['decoder']['layers']['mlp']['wo']['kernel']
  np.testing.assert_allclose(kernel.std(), 0.02 / 2, rtol=0.2)
  models.save_pretrained(tmp_path, model, params)
  theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
  close(logits, their_logits(theirs, prompt, response))
