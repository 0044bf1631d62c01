import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import activations

from kdjax.models import layers


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('name', sorted(layers.ACTIVATIONS))
def test_activations_are_those_of_transformers(name):
  x = np.linspace(-5, 5, 41, dtype=np.float32)
  expected = activations.ACT2FN[name](torch.tensor(x))
  np.testing.assert_allclose(layers.activation(name)(x), expected, atol=2e-6)


def test_unknown_activation():
  with pytest.raises(ValueError, match="'tanhish'; known are .*'relu'"):
    layers.activation('tanhish')


@pytest.mark.parametrize('offset', [False, True])
def test_rms_norm(offset):
  x = 3 * normal(0, 2, 5) + 1
  norm = layers.RMSNorm(1e-6, unit_offset=offset)
  params = norm.init(jax.random.key(0), x)
  fresh = norm.apply(params, x)
  np.testing.assert_allclose(jnp.mean(fresh**2, -1), 1, rtol=1e-4)
  scale = normal(1, 5)
  scaled = norm.apply({'params': {'scale': scale}}, x)
  factor = 1 + scale if offset else scale
  np.testing.assert_allclose(scaled, fresh * factor, rtol=1e-5)
  half = layers.RMSNorm(1e-6, jnp.bfloat16, unit_offset=offset)
  assert half.apply(params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_heads_split_and_merge():
  x = normal(0, 2, 3, 12)
  heads = layers.split_heads(x, 4)
  assert heads.shape == (2, 4, 3, 3)
  np.testing.assert_array_equal(heads[:, 1], x[..., 3:6])
  np.testing.assert_array_equal(layers.merge_heads(heads), x)


def attention_inputs():
  queries, keys = normal(0, 2, 6, 3, 4), normal(1, 2, 2, 5, 4)
  values, mask = normal(2, 2, 2, 5, 4), normal(3, 2, 1, 3, 5) > -0.5
  return queries, keys, values, mask


def slow_attention(queries, keys, values, mask, bias, scale, softcap):
  """One query at a time, over what it may see only."""
  out = np.zeros(queries.shape)
  weights = np.zeros((*queries.shape[:3], keys.shape[2]))
  for b, n, t in np.ndindex(queries.shape[:3]):
    k = n * keys.shape[1] // queries.shape[1]
    seen = np.flatnonzero(mask[b, 0, t])
    if not seen.size:
      continue
    scores = keys[b, k, seen] @ queries[b, n, t] * scale
    scores = softcap * np.tanh(scores / softcap) + bias[0, n, t, seen]
    w = np.exp(scores - scores.max())
    weights[b, n, t, seen] = w / w.sum()
    out[b, n, t] = weights[b, n, t] @ values[b, k]
  return out, weights


def test_attend_equals_its_slow_twin():
  queries, keys, values, mask = attention_inputs()
  mask = mask.at[1, :, 0].set(False)
  bias = normal(4, 1, 6, 3, 5)
  out, weights = layers.attend(
    queries, keys, values, mask, bias=bias, scale=0.7, softcap=1.5
  )
  arrays = map(np.asarray, (queries, keys, values, mask, bias))
  expected = slow_attention(*arrays, 0.7, 1.5)
  np.testing.assert_allclose(out, expected[0], atol=1e-5)
  np.testing.assert_allclose(weights, expected[1], atol=1e-5)


def test_a_query_that_sees_nothing_reads_zeros_and_has_no_gradient():
  queries, keys, values, mask = attention_inputs()

  def total(queries, keys, values):
    return layers.attend(
      queries, keys, values, jnp.zeros_like(mask), softcap=1.0
    )[0].sum()

  value, gradients = jax.value_and_grad(total, (0, 1, 2))(queries, keys, values)
  assert value == 0
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


class Affine(nn.Module):
  """A block with a parameter, something of its own, and something shared."""

  width: int

  @nn.compact
  def __call__(self, x, own, shared):
    y = jnp.tanh(nn.Dense(self.width)(x)) + shared
    return (y if own is None else y * own), {'seen': y}


@pytest.mark.parametrize('own', [None, (0.5, 2.0, -1.0)])
def test_scanned_stack_equals_unrolled_and_rematerialised(own):
  x, shared = normal(0, 2, 4), normal(1, 4)
  plain = layers.Stack(Affine, (4,), 3)
  params = plain.init(jax.random.key(0), x, own, shared)['params']
  assert sorted(params) == ['layers_0', 'layers_1', 'layers_2']
  expected, extras = plain.apply({'params': params}, x, own, shared)
  stacked = jax.tree.map(
    lambda *leaves: jnp.stack(leaves),
    *(params[f'layers_{i}'] for i in range(3)),
  )
  scanned = layers.Stack(Affine, (4,), 3, scan=True)
  y, seen = scanned.apply(
    {'params': {'layers': stacked}},
    x,
    None if own is None else jnp.array(own),
    shared,
  )
  np.testing.assert_allclose(y, expected, atol=1e-6)
  np.testing.assert_allclose(
    seen['seen'], jnp.stack([e['seen'] for e in extras]), atol=1e-6
  )

  def loss(params, remat):
    stack = layers.Stack(Affine, (4,), 3, remat=remat)
    return (stack.apply({'params': params}, x, own, shared)[0] ** 2).sum()

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    jax.grad(loss)(params, True),
    jax.grad(loss)(params, False),
  )


def test_scanned_blocks_start_out_different():
  stack = layers.Stack(Affine, (4,), 3, scan=True)
  params = stack.init(jax.random.key(0), normal(0, 2, 4), None, normal(1, 4))
  kernel = params['params']['layers']['Dense_0']['kernel']
  assert kernel.shape == (3, 4, 4)
  assert np.abs(kernel[0] - kernel[1]).max() > 0.1


@pytest.mark.parametrize('scan', [False, True])
def test_empty_caches(scan):
  caches = layers.empty_caches(3, scan, (2, 1, 5, 4), jnp.bfloat16)
  leaves = jax.tree.leaves(caches)
  assert len(leaves) == (2 if scan else 6)
  for leaf in leaves:
    assert leaf.shape == ((3,) if scan else ()) + (2, 1, 5, 4)
    assert leaf.dtype == jnp.bfloat16


def test_set_dropout_finds_every_rate():
  @dataclasses.dataclass(frozen=True)
  class Config:
    width: int = 3
    dropout: float = 0.1
    attention_dropout: float = 0.2

  assert layers.set_dropout(Config(), 0.0) == Config(3, 0.0, 0.0)


@pytest.mark.parametrize('kind', ['plain', 'xla'])
def test_where_there_is_no_key_attention_reads_zeros(kind):
  queries, keys, values, mask = attention_inputs()
  none = keys[:, :, :0], values[:, :, :0], mask[..., :0]

  def total(queries):
    return layers.attend(queries, *none, kind=kind)[0].sum()

  for some in (queries, queries[:, :, :0]):
    out, weights = layers.attend(some, *none, kind=kind)
    np.testing.assert_array_equal(out, jnp.zeros(some.shape))
    assert weights.shape == (*some.shape[:3], 0)
  assert not jax.grad(total)(queries).any()
