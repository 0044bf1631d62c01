import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from transformers.models.t5 import modeling_t5

from kdjax import models, sampling, types
from kdjax.models import encoder_decoder

V, S, T = 37, 26, 9

# Eight buckets up to distance 16 of a prompt of 26: the last ones overflow.
_shape = dict(
  vocab_size=V,
  d_model=12,
  d_kv=5,
  d_ff=18,
  num_layers=1,
  num_decoder_layers=2,
  num_heads=3,
  relative_attention_num_buckets=8,
  relative_attention_max_distance=16,
  decoder_start_token_id=0,
)
CONFIGS = {
  'v1_0': lambda: transformers.T5Config(**_shape),
  'v1_1': lambda: transformers.T5Config(
    **_shape, feed_forward_proj='gated-gelu', tie_word_embeddings=False
  ),
}
every_version = pytest.mark.parametrize('name', CONFIGS)


@pytest.fixture(scope='module')
def load(reference, tmp_path_factory):
  """Returns a function: name -> (torch model, our model, our parameters)."""

  @functools.cache
  def directory(name):
    theirs, source = reference(CONFIGS[name](), scale=0.1)
    if name == 'v1_0':
      return source
    # transformers 5 makes no distinct head, but loads the released ones.
    target = tmp_path_factory.mktemp(name)
    theirs.config.save_pretrained(target)
    tensors = safetensors.torch.load_file(source / 'model.safetensors')
    tensors['lm_head.weight'] = 0.3 * torch.randn(V, 12)
    safetensors.torch.save_file(
      tensors, target / 'model.safetensors', {'format': 'pt'}
    )
    return target

  @functools.cache
  def load(name, **options):
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(
      directory(name), attn_implementation='eager'
    )
    return theirs, *models.from_pretrained(directory(name), **options)

  return load


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
  """Rows without padding, padded right, and padded left."""
  mask = np.ones((3, S), bool)
  mask[1, 17:] = mask[2, :4] = False
  return types.Prompt(tokens(0, 3, S), jnp.asarray(mask))


def as_torch(array):
  return torch.tensor(np.asarray(array)).long()


def their_logits(theirs, prompt, response):
  start = jnp.zeros((3, 1), jnp.int32)
  with torch.no_grad():
    return theirs(
      input_ids=as_torch(prompt.tokens),
      attention_mask=as_torch(prompt.mask),
      decoder_input_ids=as_torch(jnp.concatenate([start, response[:, :-1]], 1)),
    ).logits.numpy()


def close(a, b, atol=1e-5):
  np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def close_pytrees(a, b):
  jax.tree.map(close, a, b)


@pytest.mark.parametrize('bidirectional', [False, True])
@pytest.mark.parametrize('buckets, longest', [(32, 128), (8, 16)])
def test_relative_buckets_are_those_of_transformers(
  bidirectional, buckets, longest
):
  distance = np.arange(-300, 301)
  ours = encoder_decoder.relative_bucket(
    jnp.asarray(distance),
    bidirectional=bidirectional,
    buckets=buckets,
    max_distance=longest,
  )
  theirs = modeling_t5.T5Attention._relative_position_bucket(
    torch.tensor(distance), bidirectional, buckets, longest
  )
  np.testing.assert_array_equal(ours, theirs)


@every_version
def test_logits_match_transformers(load, name):
  theirs, model, params = load(name)
  assert model.config.tied_head == (name == 'v1_0')
  prompt, response = make_prompt(), tokens(1, 3, T)
  expected = their_logits(theirs, prompt, response)
  close(forced(model, params, prompt, response), expected, 3e-5)
  logits, state = prefill(model, params, prompt, T)
  steps = [logits]
  for t in range(T - 1):
    logits, state = decode(model, params, state, response[:, t : t + 1])
    steps.append(logits[:, 0])
  close(np.stack(steps, 1), expected, 3e-5)


@every_version
def test_greedy_generation_matches_transformers(load, name):
  theirs, model, params = load(name)
  prompt = make_prompt()
  ours = sampling.generate(
    model, params, prompt, jax.random.key(0), max_new_tokens=T, temperature=0
  )
  ids = theirs.generate(
    as_torch(prompt.tokens),
    attention_mask=as_torch(prompt.mask),
    max_new_tokens=T,
    do_sample=False,
    use_cache=False,  # theirs expects as many decoder layers as encoder ones
  )
  expected = np.zeros((3, T))
  expected[:, : ids.shape[1] - 1] = ids[:, 1:].numpy()
  np.testing.assert_array_equal(ours.tokens, expected)


@every_version
def test_saved_models_load_in_transformers(load, tmp_path, name):
  theirs, model, params = load(name)
  models.save_pretrained(tmp_path, model, params)
  loaded, report = type(theirs).from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not report['missing_keys'] and not report['unexpected_keys']
  head, table = loaded.lm_head.weight, loaded.shared.weight
  assert torch.equal(head, table) == (name == 'v1_0')
  prompt, response = make_prompt(), tokens(1, 3, T)
  close(
    their_logits(loaded, prompt, response),
    their_logits(theirs, prompt, response),
  )
  assert loaded.generation_config.decoder_start_token_id == 0
  again, same = models.from_pretrained(tmp_path)
  assert again.config == model.config
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_scanned_equals_unrolled(load, tmp_path):
  _, model, params = load('v1_1')
  _, scanned, stacked = load('v1_1', scan=True)
  prompt, response = make_prompt(), tokens(1, 3, T)
  expected = forced(model, params, prompt, response)
  close(forced(scanned, stacked, prompt, response), expected)
  _, state = prefill(scanned, stacked, prompt, T)
  _, state = decode(scanned, stacked, state, response[:, :3])
  state = state.rewind(jnp.array([1, 2, 0])).take(jnp.array([1, 0]))
  following = jnp.stack([response[1, 2:5], response[0, 1:4]])
  logits, _ = decode(scanned, stacked, state, following)
  close(logits[0], expected[1, 3:6])
  close(logits[1], expected[0, 2:5])
  models.save_pretrained(tmp_path, scanned, stacked)
  _, same = models.from_pretrained(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_rewound_and_regathered_states_go_on_as_if_nothing_had_been(load):
  _, model, params = load('v1_0')
  prompt, response = make_prompt(), tokens(1, 3, T)
  expected = forced(model, params, prompt, response)
  _, state = prefill(model, params, prompt, T)
  _, state = decode(model, params, state, tokens(7, 3, 4))
  state = state.rewind(jnp.zeros(3, int))  # all rejected
  _, state = decode(model, params, state, response[:, :4])
  rows, keep = [2, 0, 2], [1, 4, 1]
  state = state.rewind(jnp.array([4, 9, 1])).take(jnp.array(rows))
  following = jnp.stack([response[b, n : n + 2] for b, n in zip(rows, keep)])
  logits, _ = decode(model, params, state, following)
  for i, (b, n) in enumerate(zip(rows, keep)):
    close(logits[i], expected[b, n + 1 : n + 3])


def test_padding_never_matters(load):
  _, model, params = load('v1_0')
  prompt, response = make_prompt(), tokens(1, 3, T)
  expected = forced(model, params, prompt, response)
  noise = jnp.where(prompt.mask, prompt.tokens, tokens(5, 3, S))
  other = dataclasses.replace(prompt, tokens=noise)
  np.testing.assert_array_equal(
    forced(model, params, other, response), expected
  )
  sides = (0, 0), (2, 3)
  wide = types.Prompt(
    jnp.pad(prompt.tokens, sides), jnp.pad(prompt.mask, sides)
  )
  close(forced(model, params, wide, response), expected)
  # Not even where there is nothing else.
  empty = [
    types.Prompt(x[:1], jnp.zeros((1, S), bool)) for x in (noise, noise + 1)
  ]
  first, second = (forced(model, params, p, response[:1]) for p in empty)
  assert np.isfinite(first).all()
  np.testing.assert_array_equal(first, second)


def test_a_prompt_without_columns_is_an_empty_one(load):
  _, model, params = load('v1_0')
  response = tokens(1, 3, T)
  masked, none = (
    types.Prompt(tokens(2, 3, width), jnp.zeros((3, width), bool))
    for width in (2, 0)
  )
  expected = forced(model, params, masked, response)
  close(forced(model, params, none, response), expected)
  logits, state = prefill(model, params, none, T)
  close(logits, expected[:, 0])
  logits, _ = decode(model, params, state, response[:, :2])
  close(logits, expected[:, 1:3])


def test_causality_by_gradients(load):
  _, model, params = load('v1_1')
  response = jnp.arange(20, 20 + T)[None]
  prompt = types.Prompt(
    jnp.arange(3, 9)[None], jnp.array([[False] + [True] * 4 + [False]])
  )

  @jax.jit
  def jacobian(table):
    def hidden(table):
      changed = {**params, 'shared': {'embedding': table}}
      return model.hidden_states(changed, prompt, response)[0].sum(-1)

    return jax.jacrev(hidden)(table)

  table = jnp.asarray(params['shared']['embedding'])
  seen = np.abs(jacobian(table)).sum(-1) > 0
  for t in range(T):
    np.testing.assert_array_equal(seen[t, 20 : 20 + T], np.arange(T) < t)
    np.testing.assert_array_equal(seen[t, 3:9], prompt.mask[0])
    assert seen[t, 0]  # the start token


def test_remat_changes_no_gradient(load):
  _, model, params = load('v1_0')
  prompt, response = make_prompt(), tokens(1, 3, 2)
  config = dataclasses.replace(model.config, remat=True)
  again = dataclasses.replace(model, config=config)

  @jax.jit
  def gradients(params):
    def loss(params, model):
      return models.logprobs(model, params, prompt, response).mean()

    return [jax.grad(loss)(params, m) for m in (model, again)]

  expected, remade = gradients(params)
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(expected))
  close_pytrees(remade, expected)


def test_dropout_needs_a_key(load):
  _, model, params = load('v1_0')
  assert model.config.dropout == 0.1
  _, exact, _ = load('v1_0', dropout=0.0)
  prompt, response = make_prompt(), tokens(1, 3, T)
  run = functools.partial(forced, model, params, prompt, response)
  np.testing.assert_array_equal(run(), forced(exact, params, prompt, response))
  first, second = jax.random.split(jax.random.key(0))
  np.testing.assert_array_equal(run(first), run(first))
  assert np.abs(run(first) - run()).max() > 1e-3
  assert np.abs(run(first) - run(second)).max() > 1e-3


def test_bfloat16_stays_close(load):
  _, model, params = load('v1_1')
  _, half, _ = load('v1_1', dtype=jnp.bfloat16)
  prompt, response = make_prompt(), tokens(1, 3, T)
  logits = forced(half, params, prompt, response)
  assert logits.dtype == jnp.float32
  # bfloat16 keeps 8 bits: each rounding errs by up to 0.4 %, and some thirty
  # roundings a path add up to a few per cent of the logits' spread.
  expected = forced(model, params, prompt, response)
  error = np.sqrt(np.mean((logits - expected) ** 2))
  assert 0 < error < 0.05 * np.std(expected)


@pytest.mark.parametrize('scan', [False, True])
def test_captured_layers_are_those_of_transformers(load, scan):
  theirs, model, params = load('v1_0', scan=scan)
  prompt, response = make_prompt(), tokens(1, 3, T)
  run = jax.jit(model.hidden_states, static_argnames='capture')
  _, captured = run(params, prompt, response, capture=('hidden', 'attention'))
  start = jnp.zeros((3, 1), jnp.int32)
  with torch.no_grad():
    out = theirs(
      input_ids=as_torch(prompt.tokens),
      attention_mask=as_torch(prompt.mask),
      decoder_input_ids=as_torch(jnp.concatenate([start, response[:, :-1]], 1)),
      output_hidden_states=True,
      output_attentions=True,
    )
  for stack, length in (('encoder', 1), ('decoder', 2)):
    layers = captured[stack]
    if scan:
      layers = [jax.tree.map(lambda x: x[i], layers) for i in range(length)]  # noqa: B023
    assert len(layers) == length
    mask = prompt.mask if stack == 'encoder' else jnp.ones((3, T), bool)
    for ours, attention in zip(layers, out[f'{stack}_attentions']):
      kept = np.broadcast_to(mask[:, None, :, None], attention.shape)
      close(ours['attention'][kept], attention.numpy()[kept])
  # transformers norms the last hidden state.
  close(layers[0]['hidden'], out.decoder_hidden_states[1])
