"""The kinds of attention: one result, whatever computes it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from jax._src.cudnn import fused_attention_stablehlo

from kdjax import models, sampling, types
from kdjax.models import layers

V, S, T = 37, 9, 6

xla_attention = jax.nn.dot_product_attention


def additive_attention(queries, keys, values, bias, mask, *, scale, **_):
  """Does as cuDNN does: even lengths, one dtype, a hidden key a lower score."""
  length, memory = queries.shape[1], keys.shape[1]
  assert length % 2 == 0 and memory % 2 == 0
  assert mask.shape[2:] == (length, memory)
  bias = jnp.zeros((), queries.dtype) if bias is None else bias
  same = {x.dtype for x in (queries, keys, values, bias)}
  assert same == {jnp.dtype(jnp.bfloat16)}
  hidden = jnp.where(mask, 0, jnp.asarray(-2 << 40, bias.dtype))
  return xla_attention(
    queries, keys, values, bias + hidden, scale=scale, implementation='xla'
  )


@pytest.fixture
def count(monkeypatch):
  """Returns the kinds that were traced, 'cudnn' done by a stand-in."""
  kinds = []

  def attention(*inputs, bias, mask, scale, implementation):
    kinds.append(implementation)
    one = additive_attention if implementation == 'cudnn' else xla_attention
    return one(*inputs, bias=bias, mask=mask, scale=scale, implementation='xla')

  monkeypatch.setattr(jax.nn, 'dot_product_attention', attention)
  return kinds


def normal(seed, *shape, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def inputs(length, memory, shared, dtype, biased):
  """Six query heads; masks with queries and with keys that see nothing."""
  kv_heads = 2 if shared else 6
  queries = normal(0, 2, 6, length, 8, dtype=dtype)
  keys, values = (
    normal(i, 2, kv_heads, memory, 8, dtype=dtype) for i in (1, 2)
  )
  mask = np.random.default_rng(3).normal(size=(2, 1, length, memory)) > -0.5
  mask[1, :, 0] = mask[0, :, :, 1] = False
  bias = normal(4, 1, 6, length, memory) if biased else None
  return (queries, keys, values, bias), jnp.asarray(mask)


def outputs(kind, arrays, mask):
  """Returns what attention gives, and the gradients of a loss of it."""

  def loss(arrays):
    queries, keys, values, bias = arrays
    out, _ = layers.attend(
      queries, keys, values, mask, bias=bias, scale=0.7, kind=kind
    )
    out = out.astype(jnp.float32)
    return (out * normal(5, *out.shape)).sum(), out

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, out), gradients = run(arrays)
  return out, gradients


def close(a, b, atol):
  a, b = (np.asarray(x, np.float32) for x in (a, b))
  np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize(
  'length, memory',
  [
    (5, 7),
    *(pytest.param(*x, marks=pytest.mark.slow) for x in [(4, 6), (2, 5)]),
  ],
)
@pytest.mark.parametrize(
  # Sums of some ten products in another order; bfloat16 keeps 8 bits of values
  # and gradients up to 3, and rounds the bias for cuDNN.
  'kind, dtype, atol',
  [
    ('xla', jnp.float32, 1e-5),
    ('xla', jnp.bfloat16, 3e-2),
    ('cudnn', jnp.bfloat16, 6e-2),
  ],
)
def test_all_kinds_agree(
  count, kind, dtype, atol, length, memory, shared, biased
):
  arrays, mask = inputs(length, memory, shared, dtype, biased)
  expected, gradients = outputs('plain', arrays, mask)
  assert not count
  out, again = outputs(kind, arrays, mask)
  assert count == [kind]
  close(out, expected, atol)
  assert not out[1, :, 0].any()  # a query that sees nothing
  for got, gradient in zip(again[:4], gradients):
    if gradient is not None:
      assert got.dtype == gradient.dtype
      close(got, gradient, atol)


@pytest.mark.parametrize('kind', ['xla', 'cudnn'])
def test_what_stands_in_padding_never_matters(count, kind):
  arrays, mask = inputs(5, 7, False, jnp.bfloat16, True)
  mask = mask.at[0, ..., 4:].set(False)
  queries, keys, values, bias = arrays
  spoiled = queries, keys.at[0, :, 4:].set(jnp.nan), values, bias
  spoiled = queries, spoiled[1], values.at[0, :, 4:].set(jnp.nan), bias
  expected, gradients = outputs(kind, arrays, mask)
  out, again = outputs(kind, spoiled, mask)
  np.testing.assert_array_equal(out, expected)
  jax.tree.map(np.testing.assert_array_equal, again, gradients)
  assert not gradients[1][0, :, 4:].any()


small = dict(vocab_size=V, eos_token_id=2, pad_token_id=0, bos_token_id=1)
wide = dict(
  hidden_size=16,
  intermediate_size=18,
  num_hidden_layers=1,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=8,
)
CONFIGS = {
  't5': lambda: transformers.T5Config(
    vocab_size=V,
    d_model=12,
    d_kv=8,
    d_ff=18,
    num_layers=1,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    decoder_start_token_id=0,
  ),
  'gpt2': lambda: transformers.GPT2Config(
    **small, n_positions=24, n_embd=24, n_layer=1, n_head=3
  ),
  'llama': lambda: transformers.LlamaConfig(**small, **wide),
  # One window of two layers. A cap of the scores would leave all to 'plain'.
  'gemma2': lambda: transformers.Gemma2Config(
    **small,
    **{**wide, 'num_hidden_layers': 2},
    sliding_window=4,
    query_pre_attn_scalar=5,
    attn_logit_softcapping=None,
  ),
}
# How often each attends in scoring: T5 once in the encoder, then twice.
ATTENTIONS = {'t5': 3, 'gpt2': 1, 'llama': 1, 'gemma2': 2}
every_model = pytest.mark.parametrize('name', CONFIGS)


@functools.cache
def load(name):
  """Returns a model without dropout, and parameters that make it decided."""
  model, params = models.from_config(
    CONFIGS[name](), jax.random.key(0), dropout=0.0
  )
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda x: np.asarray(x) + 0.2 * rng.normal(size=x.shape).astype('f'), params
  )


def with_config(model, **changes):
  config = dataclasses.replace(model.config, **changes)
  return dataclasses.replace(model, config=config)


def make_prompt():
  """Rows without padding, padded right, left, on both sides, and empty."""
  mask = np.ones((5, S), bool)
  mask[1, 6:] = mask[2, :4] = mask[3, :2] = mask[3, 7:] = mask[4] = False
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(3, V, (5, S + T)), jnp.int32)
  return types.Prompt(tokens[:, :S], jnp.asarray(mask)), tokens[:, S:]


def score(model, params, prompt, response):
  """Returns log-probabilities and the gradient of their mean."""

  def loss(params):
    logprobs = models.logprobs(model, params, prompt, response)
    return logprobs.mean(), logprobs

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, logprobs), gradients = run(params)
  return logprobs, gradients


@pytest.mark.slow
@every_model
@pytest.mark.parametrize(
  # bfloat16: some twenty roundings a path, each of up to 0.4 %, of logits
  # about one wide; the two kinds round at other places.
  'kind, dtype, atol',
  [
    ('xla', jnp.float32, 3e-5),
    ('cudnn', jnp.bfloat16, 0.15),
  ],
)
def test_models_score_alike(count, name, kind, dtype, atol):
  model, params = load(name)
  plain = with_config(model, dtype=dtype)
  fused = with_config(model, dtype=dtype, attention=kind)
  prompt, response = make_prompt()
  expected, gradients = score(plain, params, prompt, response)
  assert not count
  logprobs, again = score(fused, params, prompt, response)
  assert count == [kind] * ATTENTIONS[name]
  close(logprobs, expected, atol)
  largest = max(np.abs(x).max() for x in jax.tree.leaves(gradients))
  assert largest > 1e-3
  jax.tree.map(lambda a, b: close(a, b, atol * largest), again, gradients)


@pytest.mark.slow
@every_model
def test_models_generate_alike(count, name):
  model, params = load(name)
  fused = with_config(model, attention='xla')
  prompt, _ = make_prompt()
  first, second = (
    sampling.generate(
      m, params, prompt, jax.random.key(0), max_new_tokens=T, min_new_tokens=T
    )
    for m in (model, fused)
  )
  # Reading the prompt, T5's by the encoder alone; no token that is decoded.
  assert count == ['xla'] * (1 if name == 't5' else ATTENTIONS[name])
  np.testing.assert_array_equal(first.tokens, second.tokens)
  close(first.sampling_logprobs, second.sampling_logprobs, 3e-5)
  exact = models.logprobs(fused, params, prompt, first.tokens)
  close(first.policy_logprobs, exact, 3e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['t5', 'gemma2'])
def test_scanned_and_rematerialised_models_score_alike(count, name):
  config = CONFIGS[name]()
  options = {'scan': True, 'remat': True, 'dropout': 0.0}
  model, params = models.from_config(config, jax.random.key(0), **options)
  fused = with_config(model, attention='xla')
  expected, gradients = score(model, params, *make_prompt())
  logprobs, again = score(fused, params, *make_prompt())
  assert set(count) == {'xla'}
  close(logprobs, expected, 3e-5)
  jax.tree.map(lambda a, b: close(a, b, 3e-5), again, gradients)


@functools.partial(jax.jit, static_argnums=0, static_argnames='capture')
def hidden_states(model, params, prompt, response, **options):
  return model.hidden_states(params, prompt, response, **options)


@pytest.mark.parametrize(
  'name, capture',
  [
    ('t5', ('attention',)),
    ('t5', ('cross_attention',)),
    ('llama', ('hidden', 'attention')),
  ],
)
def test_captured_weights_still_come(name, capture):
  model, params = load(name)
  fused = with_config(model, attention='xla')
  first, second = (
    hidden_states(m, params, *make_prompt(), capture=capture)
    for m in (model, fused)
  )
  assert any(x.ndim == 4 for x in jax.tree.leaves(first))
  jax.tree.map(lambda a, b: close(a, b, 3e-5), second, first)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['t5', 'gpt2'])
def test_dropped_weights_are_dropped_all_the_same(name):
  model, params = load(name)
  noisy = layers.set_dropout(model.config, 0.5)
  first, second = (
    hidden_states(
      with_config(model, **{**vars(noisy), 'attention': kind}),
      params,
      *make_prompt(),
      dropout_key=jax.random.key(0),
    )
    for kind in ('plain', 'xla')
  )
  np.testing.assert_array_equal(first, second)


def test_where_the_kernel_serves():
  choose = layers.choose_attention
  assert choose('cudnn', ('hidden',)) == 'cudnn'
  assert choose('plain') == 'plain'
  assert choose('cudnn', ('attention',)) == 'plain'
  assert choose('cudnn', ('cross_attention',)) == 'plain'
  assert choose('cudnn', dropout=0.1) == 'plain'
  assert choose('cudnn', softcap=50.0) == 'plain'
  assert choose('cudnn', decoding=True) == 'plain'


@pytest.mark.parametrize('name', ['t5', 'llama'])
@pytest.mark.parametrize(
  'changes, options, message',
  [
    ({}, {'dtype': 'float32'}, "is float32: set dtype='bfloat16'"),
    ({'d_kv': 12, 'head_dim': 12}, {}, 'multiple of 8 .* it is 12'),
    ({'d_kv': 264, 'head_dim': 264}, {}, 'at most 256, but it is 264'),
    ({}, {'attention': 'flash'}, "'flash': expected 'plain', 'xla' or"),
  ],
)
def test_what_no_gpu_could_run_is_refused(name, changes, options, message):
  config = {**CONFIGS[name]().to_dict(), **changes}
  options = {'attention': 'cudnn', 'dtype': 'bfloat16', **options}
  with pytest.raises(ValueError, match=message):
    models.from_config(config, jax.random.key(0), **options)


def test_cudnn_models_load_anywhere_and_may_not_turn_float32():
  model, params = models.from_config(
    CONFIGS['llama'](), jax.random.key(0), dtype='bfloat16', attention='cudnn'
  )
  assert model.config.attention == 'cudnn'
  student, _ = models.copy_layers((model, params), 1)
  assert student.config.attention == 'cudnn'
  student, _ = models.copy_layers((model, params), 1, attention='plain')
  assert student.config.attention == 'plain'
  with pytest.raises(ValueError, match='dtype is float32'):
    models.copy_layers((model, params), 1, dtype='float32')


@pytest.mark.slow
@every_model
def test_cudnn_models_lower_to_its_kernels(monkeypatch, name):
  """All but running it: no GPU is needed, nor the library's version."""
  monkeypatch.setattr(
    fused_attention_stablehlo, 'check_cudnn_version', lambda: 91000
  )
  model, params = load(name)
  fused = with_config(model, dtype=jnp.bfloat16, attention='cudnn')
  prompt, response = make_prompt()

  @jax.jit
  @jax.grad
  def gradient(params):
    return models.logprobs(fused, params, prompt, response).mean()

  lowered = gradient.trace(params).lower(lowering_platforms=('cuda',))
  text = lowered.as_text()
  times = ATTENTIONS[name]
  assert text.count('@__cudnn$fmhaScaleBiasSoftmax(') == times
  assert text.count('@__cudnn$fmhaScaleBiasSoftmaxBackward(') == times
